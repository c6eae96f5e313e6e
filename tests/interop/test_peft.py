"""Adapter folders in the form of `peft`, written and read without it: what comes back, and what is refused by name."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.core import meta

from slm_jax.core.errors import UserError
from slm_jax.core.trees import flatten_by_path
from slm_jax.interop.engine import MappingError
from slm_jax.interop.peft import export_peft, load_peft
from slm_jax.interop.readers import open_weights
from slm_jax.nn.lora import LoRAConfig, with_lora
from slm_jax.sequence_models.presets import gpt2, llama, opt

TINY = {"vocabulary": 11, "layers": 2, "width": 12, "heads": 3, "hidden": 20, "max_positions": 16}
LLAMA, OPT, GPT2 = llama(**TINY, kv_heads=1), opt(**TINY), gpt2(**TINY)
CONFIG = LoRAConfig(targets=".*/(query|out|up)", rank=2, alpha=5.0, name="speech")


def adapter(base, config=CONFIG):
    """With every leaf drawn."""
    model, ids = base.make(), jnp.zeros((1, 2), jnp.int32)
    made = meta.unbox(jax.eval_shape(with_lora(model, config).init, jax.random.key(0), ids))["lora"]
    generator = np.random.default_rng(0)
    return jax.tree.map(lambda leaf: generator.standard_normal(leaf.shape).astype(np.float32), made)


@pytest.fixture
def folder(tmp_path):
    return export_peft(tmp_path / "adapter", LLAMA, CONFIG, adapter(LLAMA), base_name="a/base")


def change(folder, **fields):
    path = folder / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


@pytest.mark.parametrize("base", [LLAMA, OPT], ids=["llama", "opt"])
def test_what_is_written_comes_back(base, tmp_path):
    lora = adapter(base)
    config, back = load_peft(export_peft(tmp_path / "adapter", base, CONFIG, lora), base, "speech")
    assert config == CONFIG.replace(targets=config.targets)
    assert set(config.targets.split("|")) == {
        f"blocks/layers/{at}" for at in ("attention/query", "attention/out", "mlp/up")
    }
    for path, leaf in flatten_by_path(lora).items():
        np.testing.assert_array_equal(flatten_by_path(back)[path], leaf)


def test_names_and_fields_are_those_of_peft(folder):
    fields = json.loads((folder / "adapter_config.json").read_text())
    assert fields["target_modules"] == ["o_proj", "q_proj", "up_proj"]
    assert (fields["r"], fields["lora_alpha"], fields["base_model_name_or_path"]) == (2, 5, "a/base")
    shapes = open_weights(folder / "adapter_model.safetensors").shapes
    assert shapes["base_model.model.model.layers.1.self_attn.o_proj.lora_A.weight"] == (2, 12)
    assert shapes["base_model.model.model.layers.0.mlp.up_proj.lora_B.weight"] == (20, 2)
    assert len(shapes) == 2 * 3 * 2


def test_one_name_for_two_modules_is_written_longer(tmp_path):
    config = CONFIG.replace(targets=".*/attention/out")
    folder = export_peft(tmp_path / "gpt2", GPT2, config, adapter(GPT2, config))
    assert json.loads((folder / "adapter_config.json").read_text())["target_modules"] == ["attn.c_proj"]
    assert load_peft(folder, GPT2, "speech")[0] == config.replace(targets="blocks/layers/attention/out")


def test_a_layer_that_the_family_has_no_module_for_is_named(tmp_path):
    with pytest.raises(MappingError, match="nothing in the table writes 'blocks/layers/attention/query/speech/a'"):
        export_peft(tmp_path / "gpt2", GPT2, CONFIG, adapter(GPT2))
    assert not (tmp_path / "gpt2").exists()


@pytest.mark.parametrize(
    "fields",
    [
        {"use_dora": True},
        {"rank_pattern": {"q_proj": 4}},
        {"modules_to_save": ["lm_head"]},
        {"bias": "all"},
        {"peft_type": "IA3"},
        {"init_lora_weights": "pissa_niter_4"},
        {"something_to_come": 1},
    ],
    ids=lambda fields: next(iter(fields)),
)
def test_fields_that_we_cannot_honour_are_refused_by_name(folder, fields):
    change(folder, **fields)
    with pytest.raises(UserError, match=next(iter(fields))):
        load_peft(folder, LLAMA)


def test_other_bases_and_ranks_are_refused_with_every_misfit(folder):
    with pytest.raises(MappingError, match=r"q_proj.lora_A.weight' has shape \[2, 12\], .* needs \[2, 18\]"):
        load_peft(folder, LLAMA.replace(width=18))
    with pytest.raises(MappingError, match="layer 2' is left unfilled"):
        load_peft(folder, LLAMA.replace(layers=3))
    with pytest.raises(MappingError, match=r"source '.*layers.1.* has no rule"):
        load_peft(folder, LLAMA.replace(layers=1))
    change(folder, r=3)
    with pytest.raises(MappingError, match=r"needs \[3, 12\]"):
        load_peft(folder, LLAMA)


def test_folders_without_their_files_are_refused(folder, tmp_path):
    with pytest.raises(UserError, match="holds no adapter_config"):
        load_peft(tmp_path / "nothing", LLAMA)
    (folder / "adapter_model.safetensors").unlink()
    with pytest.raises(UserError, match="no adapter_model"):
        load_peft(folder, LLAMA)
    (folder / "adapter_config.json").write_text("[]")
    with pytest.raises(UserError, match="is damaged"):
        load_peft(folder, LLAMA)


def test_an_adapter_of_another_rank_is_not_written(tmp_path):
    with pytest.raises(MappingError, match="the config needs"):
        export_peft(tmp_path / "adapter", LLAMA, CONFIG.replace(rank=3), adapter(LLAMA))
