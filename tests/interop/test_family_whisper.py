"""Whisper's folders: configs both ways, both spellings, what is refused."""

import json

import jax
import numpy as np
import pytest

from slm_jax.assemblies.whisper import whisper
from slm_jax.core.errors import UserError
from slm_jax.interop.engine import export_params, import_params, resolve
from slm_jax.interop.families import FAMILIES, family_for, family_of
from slm_jax.interop.model import export, load, open_model
from tests.shapes import WHISPER
from tests.whisper_folder import drawn_params

FAMILY = FAMILIES["whisper"]
UNTIED = WHISPER.replace(
    encoder=WHISPER.encoder.replace(layer_drop=0.1, dropout=0.2),
    decoder=WHISPER.decoder.replace(tied_head=False, dropout=0.2),
)
PUBLISHED = {
    "model_type": "whisper",
    "architectures": ["WhisperForConditionalGeneration"],
    "activation_dropout": 0.0,
    "activation_function": "gelu",
    "apply_spec_augment": False,
    "attention_dropout": 0.0,
    "begin_suppress_tokens": [220, 50257],
    "bos_token_id": 50257,
    "classifier_proj_size": 256,
    "d_model": 512,
    "decoder_attention_heads": 8,
    "decoder_ffn_dim": 2048,
    "decoder_layerdrop": 0.0,
    "decoder_layers": 6,
    "decoder_start_token_id": 50258,
    "dropout": 0.0,
    "encoder_attention_heads": 8,
    "encoder_ffn_dim": 2048,
    "encoder_layerdrop": 0.0,
    "encoder_layers": 6,
    "eos_token_id": 50257,
    "forced_decoder_ids": [[1, 50259], [2, 50359], [3, 50363]],
    "init_std": 0.02,
    "is_encoder_decoder": True,
    "mask_time_prob": 0.05,
    "max_source_positions": 1500,
    "max_target_positions": 448,
    "num_hidden_layers": 6,
    "num_mel_bins": 80,
    "pad_token_id": 50257,
    "scale_embedding": False,
    "use_cache": True,
    "use_weighted_layer_sum": False,
    "vocab_size": 51865,
}
"""What the hub's folder of Whisper-base holds."""


def same(one, other):
    jax.tree.map(np.testing.assert_array_equal, one, other)


@pytest.mark.parametrize("spelling", ["transformers", "openai"])
@pytest.mark.parametrize("config", [WHISPER, UNTIED], ids=["tied", "untied"])
def test_export_and_import_are_inverse(config, spelling, tmp_path):
    params = drawn_params(config)
    export(config, params, tmp_path / "hub", spelling)
    model = open_model(tmp_path / "hub")
    assert (model.family, model.spelling) == (FAMILY, spelling)
    assert (config, FAMILY) == (model.config, family_for(config))
    same(load(tmp_path / "hub")[1], params)


def test_a_published_config_becomes_the_preset():
    assert family_of(PUBLISHED).read_config(PUBLISHED) == whisper("base")
    large = PUBLISHED | {"d_model": 1280, "num_mel_bins": 128, "vocab_size": 51866, "decoder_layers": 4}
    large |= {f"{part}_{field}": value for part in ("encoder", "decoder") for field, value in (("attention_heads", 20), ("ffn_dim", 5120))}
    assert FAMILY.read_config(large | {"encoder_layers": 32}) == whisper("large-v3-turbo")


def test_the_file_beside_it_says_how_it_hears(tmp_path):
    export(WHISPER, drawn_params(WHISPER), tmp_path / "hub")
    told = json.loads((tmp_path / "hub" / "preprocessor_config.json").read_text())
    assert (told["feature_size"], told["chunk_length"], told["hop_length"]) == (20, 0.32, 160)
    assert "preprocessor_config" not in json.loads((tmp_path / "hub" / "config.json").read_text())
    assert FAMILY.write_config(whisper("base"))["preprocessor_config"]["chunk_length"] == 30


def test_how_much_is_heard_and_how_it_runs_is_not_in_the_file():
    changed = {"unroll": True, "remat": True, "dtype": "bfloat16"}
    ours = WHISPER.replace(
        encoder=WHISPER.encoder.replace(trim=True, **changed), decoder=WHISPER.decoder.replace(**changed)
    )
    assert FAMILY.read_config(FAMILY.write_config(ours)) == WHISPER


def test_what_the_file_cannot_say_is_refused():
    with pytest.raises(UserError, match=r"whisper can't say .*decoder.key_bias"):
        FAMILY.write_config(WHISPER.replace(decoder=WHISPER.decoder.replace(key_bias=True)))
    with pytest.raises(UserError, match=r"encoder.dropout: 0.1 -> 0.0"):
        FAMILY.write_config(WHISPER.replace(encoder=WHISPER.encoder.replace(dropout=0.1)))


def test_everything_unsupported_is_named_at_once():
    wrong = PUBLISHED | {
        "scale_embedding": True,
        "activation_function": "relu",
        "use_weighted_layer_sum": True,
        "something_new": 1,
        "preprocessor_config": {"chunk_length": 20, "feature_size": 128, "n_fft": 512},
    }
    with pytest.raises(UserError) as error:
        FAMILY.read_config(wrong)
    for name in ("scale_embedding", "activation_function", "use_weighted_layer_sum", "something_new"):
        assert f"{name} is " in str(error.value)
    for name, value in wrong["preprocessor_config"].items():
        assert f"preprocessor_config.{name} is {value}" in str(error.value)


def read(spelling, arrays):
    plan = resolve(
        FAMILY.table(WHISPER, spelling), {name: a.shape for name, a in arrays.items()}, FAMILY.abstract(WHISPER)
    )
    return import_params(plan, arrays.__getitem__)


def test_names_of_the_original_checkpoints():
    params = drawn_params(WHISPER)
    arrays = dict(export_params(FAMILY.table(WHISPER, "openai"), params))
    layer = {"attn", "attn_ln", "mlp", "mlp_ln"}
    parts = {".".join(name.split(".")[:4])for name in arrays if ".blocks.1." in name}
    assert parts == {f"encoder.blocks.1.{n}" for n in layer} | {
        f"decoder.blocks.1.{n}" for n in layer | {"cross_attn", "cross_attn_ln"}
    }
    others = {name for name in arrays if ".blocks." not in name}
    assert others == {
        *(f"encoder.conv{i}.{kind}" for i in (1, 2) for kind in ("weight", "bias")),
        *(f"encoder.ln_post.{kind}" for kind in ("weight", "bias")),
        *(f"decoder.ln.{kind}" for kind in ("weight", "bias")),
        *("encoder.positional_embedding", "decoder.positional_embedding", "decoder.token_embedding.weight"),
    }
    assert "encoder.blocks.0.attn.key.bias" not in arrays and "encoder.blocks.0.attn.query.bias" in arrays
    same(read("openai", arrays), params)


def test_prefixes_and_copies_of_transformers_are_read():
    params = drawn_params(WHISPER)
    arrays = dict(export_params(FAMILY.table(WHISPER, "transformers"), params))
    assert "proj_out.weight" not in arrays
    bare = {name.removeprefix("model."): array for name, array in arrays.items()}  # as `WhisperModel` saves it
    same(read("transformers", bare), params)
    tied = arrays | {"proj_out.weight": arrays["model.decoder.embed_tokens.weight"]}
    same(read("transformers", tied), params)
