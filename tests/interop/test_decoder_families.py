"""GPT-2, OPT, LLaMA, Qwen2 and Mistral: configs both ways, and no field of a `config.json` that is silently dropped."""

import pytest

from slm_jax.core.errors import UserError
from slm_jax.interop.families import FAMILIES, family_for, family_named, family_of
from slm_jax.interop.hub_config import UnsupportedFields
from slm_jax.nn.positions import RopeScaling
from slm_jax.sequence_models.presets import gpt2, gslm_transformer_lm_big, llama, mistral, opt, qwen2

LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
LLAMA3 |= {"original_max_position_embeddings": 8192}
PUBLISHED = {
    "gpt2": (
        {"model_type": "gpt2", "n_ctx": 1024, "resid_pdrop": 0.1, "summary_type": "cls_index", "bos_token_id": 50256},
        gpt2(),
    ),
    "opt-350m": (
        {
            "model_type": "opt",
            "do_layer_norm_before": False,
            "hidden_size": 1024,
            "word_embed_proj_dim": 512,
            "num_hidden_layers": 24,
            "num_attention_heads": 16,
            "ffn_dim": 4096,
            "_remove_final_layer_norm": False,
            "prefix": "</s>",
            "layerdrop": 0.0,
            "activation_dropout": 0.0,
        },
        opt("350m"),
    ),
    "llama-3.1-8b": (
        {
            "model_type": "llama",
            "vocab_size": 128256,
            "intermediate_size": 14336,
            "num_key_value_heads": 8,
            "rms_norm_eps": 1e-5,
            "rope_theta": 500000.0,
            "rope_scaling": LLAMA3,
            "max_position_embeddings": 131072,
            "eos_token_id": [128001, 128008],
            "attention_bias": False,
            "pretraining_tp": 1,
        },
        llama("3-8b", max_positions=131072, rope_scaling=RopeScaling(kind="llama3", factor=8.0)),
    ),
    "llama-linear": (
        {"model_type": "llama", "rope_parameters": {"rope_type": "linear", "factor": 2, "rope_theta": 100}},
        llama("7b", max_positions=2048, rope_base=100.0, rope_scaling=RopeScaling(factor=2.0)),
    ),
    "qwen2-0.5b": (
        {
            "model_type": "qwen2",
            "hidden_size": 896,
            "intermediate_size": 4864,
            "num_hidden_layers": 24,
            "num_attention_heads": 14,
            "num_key_value_heads": 2,
            "rope_theta": 1e6,
            "use_sliding_window": False,
            "sliding_window": 32768,
            "max_window_layers": 21,
            "tie_word_embeddings": True,
        },
        qwen2("0.5b", max_positions=32768),
    ),
    "mistral-7b-v0.1": (
        {"model_type": "mistral", "num_key_value_heads": 8, "rms_norm_eps": 1e-5, "max_position_embeddings": 32768}
        | {"rope_theta": 10000.0, "sliding_window": 4096, "tie_word_embeddings": False},
        mistral("7b", max_positions=32768),
    ),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_configs_become_the_preset_and_back(name):
    hub, ours = PUBLISHED[name]
    family = family_of(hub)
    assert family.read_config(hub) == ours
    assert family.read_config(family.write_config(ours)) == ours
    assert family_for(ours) is family


@pytest.mark.parametrize(
    ("name", "fields", "fault"),
    [
        ("gpt2", {"scale_attn_by_inverse_layer_idx": True}, "scale_attn_by_inverse_layer_idx is True: only False or"),
        ("gpt2", {"embd_pdrop": 0.3}, "embd_pdrop is 0.3: must equal resid_pdrop 0.1"),
        ("gpt2", {"add_cross_attention": True}, "add_cross_attention is True"),
        ("gpt2", {"n_layer": "twelve"}, "n_layer is 'twelve': must be a whole number"),
        ("gpt2", {"n_ctx": 512}, "n_ctx is 512: must equal n_positions 1024"),
        ("opt", {"layer_norm_elementwise_affine": False}, "layer_norm_elementwise_affine is False"),
        ("opt", {"activation_function": "mish"}, "activation_function is 'mish': must be one of gelu,"),
        ("llama", {"quantization_config": {"bits": 4}}, "quantization_config is .*not supported"),
        ("llama", {"rope_scaling": {"type": "dynamic", "factor": 2.0}}, "rope_type is 'dynamic': must be one of"),
        ("llama", {"rope_scaling": {"type": "linear"}}, "linear scaling has exactly factor"),
        ("llama", {"rope_scaling": {**LLAMA3, "beta": 1.0}}, "llama3 scaling has exactly"),
        ("llama", {"auto_map": {"AutoModelForCausalLM": "own.Model"}}, "auto_map is .*not supported"),
        ("llama", {"partial_rotary_factor": 0.5}, "partial_rotary_factor is 0.5: only 1.0"),
        ("llama", {"sliding_window": 4096}, "sliding_window is 4096"),
        ("mistral", {"sliding_window": "wide"}, "sliding_window is 'wide': must be a whole number"),
        ("mistral", {"rope_scaling": {"type": "yarn", "factor": 2.0}}, "rope_type is 'yarn': must be one of"),
        ("qwen2", {"use_sliding_window": True}, "all layers must be of one type"),
        ("qwen2", {"tie_word_embeddings": "yes"}, "tie_word_embeddings is 'yes': must be true or false"),
        ("qwen2", {"attention_bias": False}, "attention_bias is False: this field is not supported"),
    ],
)
def test_fields_that_we_cannot_honour_are_named(name, fields, fault):
    with pytest.raises(UnsupportedFields, match=fault):
        FAMILIES[name].read_config({"model_type": name, **fields})


def test_all_unsupported_fields_are_named_at_once():
    hub = {"model_type": "llama", "logit_softcap": 30.0, "hidden_act": "mish", "parallel_residual": True, "note": None}
    with pytest.raises(UnsupportedFields) as error:
        FAMILIES["llama"].read_config(hub)
    assert [fault.split(" is ")[0] for fault in error.value.faults] == [
        "hidden_act",
        "logit_softcap",
        "parallel_residual",
    ]


def test_a_sliding_window_of_all_layers_is_ours():
    hub = {"model_type": "qwen2", "use_sliding_window": True, "sliding_window": 77, "max_window_layers": 0}
    config = FAMILIES["qwen2"].read_config(hub)
    assert config.window == 77
    assert FAMILIES["qwen2"].read_config(FAMILIES["qwen2"].write_config(config)) == config


def test_null_is_no_window_and_absent_is_the_one_of_transformers():
    family = FAMILIES["mistral"]
    shape = {"model_type": "mistral", "rms_norm_eps": 1e-5, "max_position_embeddings": 32768, "rope_theta": 1e6}
    late = family.read_config(shape | {"sliding_window": None})
    assert late == mistral("7b-v0.2", max_positions=32768)
    assert family.write_config(late)["sliding_window"] is None
    assert family.read_config(shape).window == 4096 and family.read_config(shape).groups == 8
    assert family_for(late) is FAMILIES["llama"], "without a window it is a LLaMA"


def test_params_of_the_original_code():
    hub = {"dim": 4096, "n_layers": 32, "n_heads": 32, "n_kv_heads": 8, "multiple_of": 1024, "ffn_dim_multiplier": 1.3}
    hub |= {"vocab_size": 128256, "norm_eps": 1e-5, "rope_theta": 500000.0}
    assert family_of(hub).read_config(hub) == llama("3-8b", max_positions=2048)
    with pytest.raises(UnsupportedFields, match="vocab_size is -1"):
        family_of(hub).read_config(hub | {"vocab_size": -1})


def test_configs_that_a_family_cannot_say():
    with pytest.raises(UserError, match=r"opt can't say .*position_offset: 0 -> 2"):
        FAMILIES["opt"].write_config(gpt2())
    with pytest.raises(UserError, match=r"qk_norm: True -> False"):
        FAMILIES["llama"].write_config(llama(qk_norm=True))
    with pytest.raises(UserError, match=r"llama can't say out_bias: False -> True"):
        FAMILIES["llama"].write_config(qwen2())
    with pytest.raises(UserError, match=r"(?s)no family can say this DecoderConfig.*gpt2.*opt.*llama.*qwen2"):
        family_for(gslm_transformer_lm_big())


def test_running_fields_and_rates_of_training_may_get_lost():
    config = llama(max_positions=100, unroll=True, dtype="bfloat16", dropout=0.2)
    assert FAMILIES["llama"].read_config(FAMILIES["llama"].write_config(config)) == llama(max_positions=100)


def test_unknown_architectures_and_names():
    with pytest.raises(UserError, match=r"model_type is 'bert': no family of slm_jax reads it"):
        family_of({"model_type": "bert"})
    with pytest.raises(UserError, match=r"family is 'gtp2'.*did you mean 'gpt2'"):
        family_named("gtp2")
