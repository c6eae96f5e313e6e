"""SALMONN's released file: every name of it has a place, every place a name, and both ways are inverse."""

import numpy as np
import pytest
from flax.core import meta

from slm_jax.core.trees import flatten_by_path
from slm_jax.interop.engine import MappingError
from slm_jax.interop.safetensors import write_safetensors
from slm_jax.interop.salmonn import abstract_trained, load_salmonn, named_arrays
from slm_jax.systems.speech_aware import salmonn
from tests.systems.drawn import drawn_salmonn, small_salmonn

LORA = small_salmonn()[0].lora


@pytest.fixture(scope="module")
def system():
    return drawn_salmonn()


@pytest.fixture(scope="module")
def released(system):
    """Name -> array, as the released code calls them, with the buffers that it keeps."""
    arrays = dict(named_arrays(system.variables, system.model.config, LORA))
    arrays["speech_Qformer.bert.embeddings.position_ids"] = np.arange(4, dtype=np.float32)[None]
    arrays["llama_model.base_model.model.model.layers.0.self_attn.rotary_emb.inv_freq"] = np.ones(4, np.float32)
    return arrays


def written(path, arrays):
    shapes = {name: array.shape for name, array in arrays.items()}
    write_safetensors(path, shapes, iter(arrays.items()), np.float32)
    return path


def test_what_is_read_is_what_was_written(system, released, tmp_path):
    found = load_salmonn(written(tmp_path / "salmonn.safetensors", released), system.model.config, LORA)
    wanted = flatten_by_path(
        {
            "params": {name: system.variables["params"][name] for name in ("adapter", "join")},
            "lora": system.variables["lora"],
        }
    )
    assert flatten_by_path(found).keys() == wanted.keys()
    for path, leaf in flatten_by_path(found).items():
        np.testing.assert_array_equal(leaf, wanted[path])


def test_the_names_are_the_released_ones(released):
    assert released["speech_query_tokens"].shape == (1, 1, 8)
    llama = "llama_model.base_model.model.model.layers.0.self_attn"
    for name in (
        "speech_Qformer.bert.embeddings.LayerNorm.weight",
        "speech_Qformer.bert.encoder.layer.1.attention.self.query.weight",
        "speech_Qformer.bert.encoder.layer.0.crossattention.output.LayerNorm.bias",
        "speech_Qformer.bert.encoder.layer.1.intermediate_query.dense.bias",
        "speech_Qformer.bert.encoder.layer.1.output_query.LayerNorm.weight",
        "speech_llama_proj.weight",
        "ln_speech.weight",
        "ln_audio.bias",
        f"{llama}.q_proj.lora_A.default.weight",
        f"{llama}.v_proj.lora_B.default.weight",
    ):
        assert name in released
    assert not any("k_proj" in name or "o_proj" in name for name in released)


def test_the_published_size_needs_33_million_numbers():
    stage = salmonn.config("13b").stage("activation")
    model = stage.model({part.path: part.expect for part in stage.parts}).config
    shapes = flatten_by_path(meta.unbox(abstract_trained(model, stage.lora)))
    assert sum(int(np.prod(leaf.shape)) for leaf in shapes.values()) == 33_332_992


def test_everything_that_does_not_fit_is_listed_at_once(system, released, tmp_path):
    spoilt = {name: array for name, array in released.items() if name != "ln_audio.bias"}
    spoilt["speech_llama_proj.weight"] = np.zeros((3, 8), np.float32)
    spoilt["ln_video.bias"] = np.zeros(3, np.float32)
    with pytest.raises(MappingError, match="no SALMONN of this shape") as caught:
        load_salmonn(written(tmp_path / "bad.safetensors", spoilt), system.model.config, LORA)
    assert len(caught.value.faults) == 3
