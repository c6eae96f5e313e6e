"""T5 and mT5: published configs become the presets, weights go out and come back, no field is silently dropped."""

import numpy as np
import pytest

from slm_jax.core.errors import UserError
from slm_jax.core.trees import flatten_by_path
from slm_jax.interop.engine import export_params, export_shapes, import_params, nested, resolve
from slm_jax.interop.families import FAMILIES, family_for, family_of
from slm_jax.interop.family_t5 import abstract_params, table, told_by_names
from slm_jax.interop.hub_config import UnsupportedFields
from slm_jax.interop.model import export, load
from slm_jax.nn.relative_bias import RelativeBiasConfig
from slm_jax.sequence_models.t5 import mt5, t5, t5_v1_1

COMMON = {"architectures": ["T5ForConditionalGeneration"], "is_encoder_decoder": True, "decoder_start_token_id": 0}
COMMON |= {"eos_token_id": 1, "pad_token_id": 0, "initializer_factor": 1.0, "layer_norm_epsilon": 1e-6}
COMMON |= {"dropout_rate": 0.1, "d_kv": 64, "relative_attention_num_buckets": 32}
PUBLISHED = {
    "t5-base": (
        {"model_type": "t5", "d_model": 768, "d_ff": 3072, "num_layers": 12, "num_heads": 12, "n_positions": 512}
        | {"vocab_size": 32128, "output_past": True, "task_specific_params": {"summarization": {"num_beams": 4}}},
        t5("base"),
    ),
    "t5-v1_1-large": (
        {"model_type": "t5", "d_model": 1024, "d_ff": 2816, "num_layers": 24, "num_decoder_layers": 24}
        | {"num_heads": 16, "feed_forward_proj": "gated-gelu", "tie_word_embeddings": False, "use_cache": True},
        t5_v1_1("large"),
    ),
    "flan-t5-small": (
        {"model_type": "t5", "d_model": 512, "d_ff": 1024, "num_layers": 8, "num_heads": 6, "dense_act_fn": "gelu_new"}
        | {"feed_forward_proj": "gated-gelu", "is_gated_act": True, "tie_word_embeddings": False, "n_positions": 512},
        t5_v1_1("small"),
    ),
    "mt0-xxl": (
        {"model_type": "mt5", "d_model": 4096, "d_ff": 10240, "num_layers": 24, "num_decoder_layers": 24}
        | {"num_heads": 64, "feed_forward_proj": "gated-gelu", "tie_word_embeddings": False, "vocab_size": 250112}
        | {"tokenizer_class": "T5Tokenizer", "relative_attention_max_distance": 128},
        mt5("xxl"),
    ),
    "mt5-small": ({"model_type": "mt5", "tie_word_embeddings": False}, mt5()),
}
TINY = {"vocabulary": 13, "layers": 2, "width": 12, "heads": 2, "head_width": 4, "hidden": 10}
TINY |= {"relative_bias": RelativeBiasConfig(buckets=4, max_distance=3)}
CONFIGS = {
    "tied": t5(**TINY),
    "apart": t5_v1_1(**TINY, norm_epsilon=1e-5),
    "tied, not scaled": mt5(**TINY, activation="silu", dropout=0.0, attention_dropout=0.0, activation_dropout=0.0),
}
CONFIGS["tied, not scaled"] = CONFIGS["tied, not scaled"].replace(
    decoder=CONFIGS["tied, not scaled"].decoder.replace(tied_head=True, layers=1)
)


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_configs_become_the_preset_and_back(name):
    fields, ours = PUBLISHED[name]
    family = family_of(COMMON | fields)
    assert family.read_config(COMMON | fields) == ours
    assert family.read_config(family.write_config(ours)) == ours
    assert family_for(ours).name == "t5"  # which can say an mT5 too


@pytest.mark.parametrize(
    ("fields", "fault"),
    [
        ({"feed_forward_proj": "gated-mish"}, "feed_forward_proj is 'gated-mish': must be one of relu,"),
        ({"feed_forward_proj": "gated-gelu", "dense_act_fn": "gelu"}, "dense_act_fn is 'gelu': must be 'gelu_new'"),
        ({"is_encoder_decoder": False}, "is_encoder_decoder is False: only True"),
        ({"num_layers": "six"}, "num_layers is 'six': must be a whole number"),
        ({"encoder_attention_type": "local"}, "encoder_attention_type is 'local': this field is not supported"),
    ],
)
def test_fields_that_we_cannot_honour_are_named(fields, fault):
    with pytest.raises(UnsupportedFields, match=fault):
        FAMILIES["t5"].read_config({"model_type": "t5", **fields})


def test_configs_that_the_family_cannot_say():
    config = t5_v1_1(**TINY)
    for field, value in (("attention_scale", None), ("qkv_bias", True), ("head_scale", 0.5)):
        with pytest.raises(UserError, match=rf"t5 can't say .*decoder\.{field}"):
            FAMILIES["t5"].write_config(config.replace(decoder=config.decoder.replace(**{field: value})))
    with pytest.raises(UserError, match=r"mt5 can't say decoder.head_scale"):
        FAMILIES["mt5"].write_config(t5(**TINY))


def drawn(config) -> dict:
    generator = np.random.default_rng(0)
    leaves = flatten_by_path(abstract_params(config))
    return nested({p: generator.standard_normal(leaf.shape).astype(np.float32) for p, leaf in leaves.items()})


@pytest.mark.parametrize("name", CONFIGS)
def test_weights_go_out_and_come_back_with_nothing_left_over(name, tmp_path):
    config = CONFIGS[name]
    params, rules = drawn(config), table(config)
    written = dict(export_params(rules, params))
    assert {key: value.shape for key, value in written.items()} == export_shapes(rules, params)
    assert ("lm_head.weight" in written) == (name == "apart") and "encoder.embed_tokens.weight" not in written
    plan = resolve(rules, export_shapes(rules, params), abstract_params(config))
    again = import_params(plan, written.__getitem__)
    for path, leaf in flatten_by_path(params).items():
        np.testing.assert_array_equal(flatten_by_path(again)[path], leaf, err_msg=path)
    found, loaded = load(export(config, params, tmp_path / "hub"))
    assert found == config
    np.testing.assert_array_equal(loaded["decoder"]["tokens"]["embedding"], params["decoder"]["tokens"]["embedding"])


def test_a_head_in_the_file_is_apart_where_the_config_leaves_it_open():
    names = {"shared.weight", "lm_head.weight"}
    open_, tied = CONFIGS["tied, not scaled"], CONFIGS["tied"]
    assert not told_by_names(open_, names).decoder.tied_head
    assert told_by_names(open_, {"shared.weight"}) == open_
    assert told_by_names(tied, names) == tied, "a scaled one is a copy"
