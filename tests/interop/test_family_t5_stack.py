"""A stage of AudioLM under the names of `T5Stack`: configs and weights out and back, nothing is silently dropped."""

import numpy as np
import pytest

from slm_jax.core.errors import UserError
from slm_jax.core.trees import flatten_by_path
from slm_jax.interop.decoder_shapes import abstract_params
from slm_jax.interop.engine import export_params, nested
from slm_jax.interop.families import family_for, family_of
from slm_jax.interop.family_t5_stack import T5_STACK, table
from slm_jax.interop.hub_config import UnsupportedFields
from slm_jax.interop.model import export, load
from slm_jax.interop.safetensors import write_safetensors
from slm_jax.nn.relative_bias import RelativeBiasConfig
from slm_jax.sequence_models.presets import audiolm_stage

HUB = {"model_type": "t5_stack", "is_decoder": True, "vocab_size": 5128, "d_model": 1024, "d_kv": 64, "d_ff": 4096}
HUB |= {"num_heads": 16, "num_layers": 12, "feed_forward_proj": "relu", "relative_attention_num_buckets": 32}
HUB |= {"relative_attention_max_distance": 128, "layer_norm_epsilon": 1e-6, "dropout_rate": 0.1}
HUB |= {"tie_word_embeddings": False}
TINY = {"layers": 2, "width": 12, "heads": 2, "head_width": 4, "hidden": 10}
TINY |= {"relative_bias": RelativeBiasConfig(buckets=4, max_distance=3, bidirectional=False)}
CONFIGS = {
    "relu": audiolm_stage(13, **TINY),
    "gated": audiolm_stage(13, **TINY, activation="gelu_tanh", gated=True, norm_epsilon=1e-5, dropout=0.0),
}


def test_the_published_shape_is_the_preset_and_back():
    ours = audiolm_stage(5128)
    assert family_of(HUB) is T5_STACK and T5_STACK.read_config(HUB) == ours
    assert T5_STACK.write_config(ours) == HUB | {"architectures": ["T5Stack"]}
    assert family_for(ours) is T5_STACK


@pytest.mark.parametrize("name", CONFIGS)
def test_small_shapes_are_said_and_read_back(name):
    config = CONFIGS[name].replace(attention_dropout=0.0, activation_dropout=0.0, dropout=0.0)
    assert T5_STACK.read_config(T5_STACK.write_config(config)) == config
    assert family_for(config) is T5_STACK


@pytest.mark.parametrize(
    ("fields", "fault"),
    [
        ({"is_decoder": False}, "is_decoder is False: must be true"),
        ({"is_decoder": None}, "is_decoder is False: must be true"),
        ({"is_encoder_decoder": True}, "is_encoder_decoder is True: only False"),
        ({"tie_word_embeddings": True}, "tie_word_embeddings is True: only False"),
        ({"num_decoder_layers": 3}, "num_decoder_layers is 3: must equal num_layers 12"),
        ({"feed_forward_proj": "mish"}, "feed_forward_proj is 'mish': must be one of relu,"),
        ({"logit_softcap": 30.0}, "logit_softcap is 30.0: this field is not supported"),
    ],
)
def test_fields_that_we_cannot_honour_are_named(fields, fault):
    with pytest.raises(UnsupportedFields, match=fault):
        T5_STACK.read_config(HUB | fields)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("tied_head", True),
        ("head_scale", 0.5),
        ("attention_scale", None),
        ("qkv_bias", True),
        ("relative_bias", None),
        ("max_positions", 99),
        ("norm", "layer"),
        ("activation", "gelu_tanh"),
        ("kv_heads", 1),
        ("context_width", 12),
        ("embed_width", 6),
    ],
)
def test_what_the_form_cannot_say_is_refused(field, value):
    with pytest.raises(UserError, match=rf"t5_stack can't say .*{field}"):
        T5_STACK.write_config(CONFIGS["relu"].replace(**{field: value}))


def drawn(config) -> dict:
    generator = np.random.default_rng(0)
    leaves = flatten_by_path(abstract_params(config))
    return nested({p: generator.standard_normal(leaf.shape).astype(np.float32) for p, leaf in leaves.items()})


@pytest.mark.parametrize("name", CONFIGS)
def test_weights_go_out_and_come_back_and_weights_for_a_context_are_left_aside(name, tmp_path):
    config, params = CONFIGS[name], drawn(CONFIGS[name])
    folder = export(config, params, tmp_path / "hub")
    found, loaded = load(folder)
    assert found == config.replace(attention_dropout=found.dropout, activation_dropout=found.dropout)
    same(loaded, params)
    written = dict(export_params(table(config), params))
    assert not any(".layer.1." in key for key in written) and "block.1.layer.2.layer_norm.weight" in written
    unheard = {f"block.{i}.layer.1.EncDecAttention.{part}.weight": np.ones((8, 12)) for i in (0, 1) for part in "qkvo"}
    unheard |= {f"block.{i}.layer.1.layer_norm.weight": np.ones(12) for i in (0, 1)}
    everything = written | unheard
    shapes = {key: value.shape for key, value in everything.items()}
    write_safetensors(folder / "model.safetensors", shapes, iter(everything.items()), np.float32)
    same(load(folder)[1], params)


def same(found, wanted) -> None:
    leaves = flatten_by_path(found)
    assert leaves.keys() == flatten_by_path(wanted).keys()
    for path, leaf in flatten_by_path(wanted).items():
        np.testing.assert_array_equal(leaves[path], leaf, err_msg=path)
