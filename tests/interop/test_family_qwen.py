"""Qwen, Qwen-Audio and Qwen2-Audio: configs, names, and what is refused."""

import jax
import numpy as np
import pytest

from slm_jax.adapters.linear import LinearAdapterConfig
from slm_jax.adapters.pool import PoolAdapterConfig
from slm_jax.core.errors import UserError
from slm_jax.core.part_source import PartSource
from slm_jax.encoders.whisper import WhisperEncoderConfig
from slm_jax.interop.engine import export_params, export_shapes
from slm_jax.interop.families import family_for, family_of
from slm_jax.interop.family_qwen import QWEN, QWEN_AUDIO
from slm_jax.interop.family_qwen2_audio import QWEN2_AUDIO
from slm_jax.interop.model import export, load
from slm_jax.interop.parts import fitting, open_source
from slm_jax.sequence_models.presets import llama
from slm_jax.systems.speech_aware import qwen_audio
from tests.systems.drawn_qwen_audio import drawn_model

DRAWN = drawn_model()
FIRST = DRAWN.replace(lm=DRAWN.lm.replace(max_positions=64))
SECOND = FIRST.replace(
    encoders=(FIRST.encoder.replace(mel_frames="begun"),), adapter=PoolAdapterConfig(width=16), speech_id=3
)
TEXT = llama(vocabulary=21, layers=2, width=8, heads=2, kv_heads=2, hidden=10, qkv_bias=True, max_positions=32)
MODELS = {QWEN: TEXT, QWEN_AUDIO: FIRST, QWEN2_AUDIO: SECOND}
RELEASED = {
    "model_type": "qwen", "architectures": ["QWenLMHeadModel"], "auto_map": {"AutoConfig": "configuration_qwen.Q"},
    "attn_dropout_prob": 0.0, "bf16": False, "fp16": False, "fp32": False, "emb_dropout_prob": 0.0, "hidden_size": 4096,
    "intermediate_size": 22016, "initializer_range": 0.02, "kv_channels": 128, "layer_norm_epsilon": 1e-05,
    "num_attention_heads": 32, "num_hidden_layers": 32, "max_position_embeddings": 8192, "no_bias": True,
    "onnx_safe": None, "rotary_emb_base": 10000, "rotary_pct": 1.0, "scale_attn_weights": True, "seq_length": 2048,
    "tie_word_embeddings": False, "tokenizer_type": "QWenTokenizer", "transformers_version": "4.31.0",
    "use_cache": True, "vocab_size": 155947, "use_dynamic_ntk": True, "use_logn_attn": True,
    "audio": {
        "n_mels": 80, "n_ctx": 1500, "n_state": 1280, "n_head": 20, "n_layer": 32, "output_dim": 4096, "avg_pool": True,
        "add_audio_bos_eos_token": True, "audio_start_id": 155163,
    },
}  # fmt: skip
"""The fields of the released Qwen-Audio."""


def drawn(family):
    """Parameters that are all different."""
    rng = np.random.default_rng(0)
    abstract = family.abstract(MODELS[family])
    return jax.tree.map(lambda leaf: rng.normal(size=leaf.shape).astype(leaf.dtype), abstract)


@pytest.mark.parametrize("family", MODELS, ids=lambda family: family.name)
def test_export_and_import_are_inverse(family, tmp_path):
    params = drawn(family)
    export(MODELS[family], params, tmp_path / "hub", family=family.name)
    config, read = load(tmp_path / "hub")
    assert config == family.read_config(family.write_config(MODELS[family]))
    assert family.write_config(config) == family.write_config(MODELS[family])
    jax.tree.map(np.testing.assert_array_equal, read, params)


def test_a_config_finds_its_family():
    assert family_for(FIRST) is QWEN_AUDIO and family_for(SECOND) is QWEN2_AUDIO
    assert family_of(RELEASED) is QWEN_AUDIO
    assert family_of({name: value for name, value in RELEASED.items() if name != "audio"}) is QWEN
    assert family_of({"model_type": "qwen2_audio"}) is QWEN2_AUDIO


def test_the_released_config_is_the_published_size():
    config = QWEN_AUDIO.read_config(RELEASED)
    wanted = qwen_audio.model("qwen-audio")
    plain = wanted.replace(encoders=(wanted.encoder.replace(dtype="float32", remat=False),))
    assert config.encoder == plain.encoder and config.speech_id == 155163
    assert config.lm.replace(dtype="bfloat16", remat=True) == wanted.lm.replace(kv_heads=None)
    shapes = export_shapes(QWEN_AUDIO.table(config, "original"), QWEN_AUDIO.abstract(config))
    assert shapes["transformer.h.31.attn.c_attn.weight"] == (12_288, 4096)
    assert shapes["transformer.h.0.mlp.w2.weight"] == (11_008, 4096)
    assert shapes["transformer.audio.audio_bos_eos_token.weight"] == (2, 4096)
    assert shapes["transformer.audio.blocks.31.mlp.0.weight"] == (5120, 1280)
    assert "transformer.audio.blocks.0.attn.key.bias" not in shapes


def test_of_the_two_maps_the_second_is_the_gate():
    params = drawn(QWEN)
    arrays = dict(export_params(QWEN.table(TEXT, "original"), params))
    mlp = params["blocks"]["layers"]["mlp"]
    np.testing.assert_array_equal(arrays["transformer.h.1.mlp.w2.weight"], mlp["gate"]["kernel"][1].T)
    np.testing.assert_array_equal(arrays["transformer.h.1.mlp.w1.weight"], mlp["up"]["kernel"][1].T)


def test_names_of_qwen2_audio_are_those_of_its_files():
    names = export_shapes(QWEN2_AUDIO.table(SECOND, "transformers"), QWEN2_AUDIO.abstract(SECOND))
    wanted = ("audio_tower.layer_norm.bias", "multi_modal_projector.linear.weight", "language_model.lm_head.weight")
    assert set(wanted) <= names.keys() and "language_model.model.layers.0.self_attn.q_proj.bias" in names
    assert not any(name.startswith("model.") for name in names)


def test_fields_of_qwen2_audio_are_honoured():
    config = QWEN2_AUDIO.read_config({"model_type": "qwen2_audio"})
    assert (config.encoder.layers, config.encoder.mel.mels, config.encoder.max_frames) == (32, 128, 1500)
    assert config.speech_id == 151646 and config.lm.width == 4096
    given = {"audio_config": {"encoder_layers": 3, "d_model": 40, "encoder_attention_heads": 5, "dropout": 0.1}}
    given |= {"text_config": {"hidden_size": 64, "num_attention_heads": 4, "vocab_size": 90}, "audio_token_index": 12}
    config = QWEN2_AUDIO.read_config(given)
    assert (config.encoder.layers, config.encoder.width, config.encoder.dropout) == (3, 40, 0.1)
    assert (config.lm.width, config.lm.vocabulary, config.adapter.width, config.speech_id) == (64, 90, 64, 12)


@pytest.mark.parametrize(
    ("family", "hub", "told"),
    [
        (QWEN2_AUDIO, {"audio_config": {"scale_embedding": True}}, "scale_embedding is True"),
        (QWEN2_AUDIO, {"audio_config": {"activation_function": "relu"}}, "activation_function is 'relu'"),
        (QWEN2_AUDIO, {"text_config": {"hidden_act": "mish"}}, "hidden_act is 'mish'"),
        (QWEN2_AUDIO, {"chunks": 2}, "chunks is 2"),
        (QWEN2_AUDIO, {"preprocessor_config": {"feature_size": 80}}, "feature_size is 80"),
        (QWEN, {"no_bias": False}, "no_bias is False"),
        (QWEN, {"rotary_pct": 0.5}, "rotary_pct is 0.5"),
        (QWEN_AUDIO, {"audio": {"output_dim": 12}}, "output_dim is 12: must be hidden_size, 4096"),
    ],
)
def test_what_is_not_supported_is_named(family, hub, told):
    with pytest.raises(UserError, match=told):
        family.read_config(hub)


@pytest.mark.parametrize(
    ("family", "config", "told"),
    [
        (QWEN2_AUDIO, FIRST, "mel_frames"),
        (QWEN2_AUDIO, SECOND.replace(encoders=(SECOND.encoder.replace(trim=False),)), "trim"),
        (QWEN2_AUDIO, SECOND.replace(adapter=LinearAdapterConfig(width=16)), "adapter"),
        (QWEN_AUDIO, FIRST.replace(lm=FIRST.lm.replace(out_bias=True)), "out_bias"),
    ],
)
def test_what_a_family_cannot_say_is_named(family, config, told):
    with pytest.raises(UserError, match=f"can't say .*{told}"):
        family.write_config(config)


def test_a_part_is_taken_out_of_a_folder(tmp_path):
    export(SECOND, drawn(QWEN2_AUDIO), tmp_path / "hub")
    config, params = open_source(str(tmp_path / "hub"))
    source = PartSource(path="frozen/encoder", source=str(tmp_path / "hub"), take="encoder")
    found, own = source.taken(config, params)
    assert isinstance(found, WhisperEncoderConfig) and "stack" in own
    assert fitting(source.replace(expect=SECOND.encoder), found) == SECOND.encoder
    with pytest.raises(UserError, match="final_norm True -> False"):
        fitting(source.replace(expect=SECOND.encoder.replace(final_norm=True)), found)
