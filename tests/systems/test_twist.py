import json
import os
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

from slm_jax.core.config import from_json, load_config_file
from slm_jax.core.errors import UserError
from slm_jax.core.trees import count_parameters
from slm_jax.encoders.ssl_presets import hubert_base
from slm_jax.interop.families import family_of
from slm_jax.systems.speech import twist
from slm_jax.training.warm_start import agreed, check_source

ROOT = Path(__file__).parents[2]
STORIES15M = Path(os.environ.get("SLM_JAX_REAL_WEIGHTS", "nowhere")) / "stories15m"


def parameters(decoder):
    """Number of a decoder's parameters, without computing any."""
    shapes = jax.eval_shape(decoder.make().init, jax.random.key(0), jnp.zeros((1, 2), jnp.int32))
    return count_parameters(shapes["params"])


# With the 502 rows of the released models, as transformers counts OPTForCausalLM and LlamaForCausalLM.
PUBLISHED = {
    "125m": 87_015_936,
    "350m": 305_714_176,
    "1.3b": 1_213_829_120,
    "7b": 6_480_384_000,
    "13b": 12_693_324_800,
}


@pytest.mark.parametrize("size", PUBLISHED)
def test_the_published_sizes_have_the_published_numbers_of_parameters(size):
    model = twist.body(size)
    assert parameters(model.replace(vocabulary=502)) == PUBLISHED[size]
    tables = 1 if model.tied_head else 2
    assert parameters(model) == PUBLISHED[size] + 2 * tables * model.table_width


@pytest.mark.parametrize("size", ["tiny", *PUBLISHED])
def test_a_config_survives_json(size):
    config = twist.config(size, start_from="weights")
    assert from_json(json.loads(json.dumps(config.to_json()))) == config
    assert config.stage("lm").start_from == "weights"
    assert config.name == f"twist_{size}".replace(".", "_")


@pytest.mark.parametrize("name", ["tiny", "350m", "1_3b", "7b"])
def test_a_lab_note_is_the_size_that_it_names(name):
    config = load_config_file(ROOT / "configs" / "speech" / f"twist_{name}.py")
    assert isinstance(config, twist.TWISTConfig)
    size = name.replace("_", ".")
    assert config.stage("lm").model.layers == twist.config(size).stage("lm").model.layers
    assert config.stage("lm").start_from


def test_the_published_units_come_at_25_hz_from_layer_11():
    config = twist.config("350m")
    units, vocoder = config.stage("units"), config.stage("vocoder")
    encoder = config.stage(units.features.stage).model.encoder
    assert units.features.layer == 11
    assert units.clusters == vocoder.model.units == 500
    assert encoder.frame_count(16_000) == 24  # as transformers' HubertModel with an eighth convolution gives
    assert vocoder.model.hop == vocoder.model.rate_hz // 25 == 640


def test_targets_come_twice_as_often_as_frames_at_25_hz_and_never_more_seldom():
    assert twist.hubert_25hz().labels_per_frame(320) == 2
    assert hubert_base().labels_per_frame(320) == 1
    assert len(twist.hubert_25hz().frame_grid) == 8
    with pytest.raises(UserError, match="frames are 320 samples apart: a multiple of the labels' 640"):
        hubert_base().labels_per_frame(640)


def test_the_tiny_twin_is_the_body_of_stories15m():
    config = twist.config("tiny")
    model = config.stage("lm").model
    layer = 4 * 288**2 + 3 * 288 * 768 + 2 * 288
    assert parameters(model) == 6 * layer + 288 + 104 * 288 == 6_005_664
    assert config.spoken_by == "vocoder"


# What the config.json of the text models says, as far as it bears on the shape.
OPT_BODY = {"model_type": "opt", "activation_function": "relu", "max_position_embeddings": 2048, "vocab_size": 50272}
LLAMA_BODY = {"model_type": "llama", "hidden_act": "silu", "max_position_embeddings": 2048, "vocab_size": 32000}


def opt_hub(layers, width, heads, projection, before):
    sizes = {"num_hidden_layers": layers, "hidden_size": width, "num_attention_heads": heads, "ffn_dim": 4 * width}
    return {**OPT_BODY, **sizes, "word_embed_proj_dim": projection, "do_layer_norm_before": before}


def llama_hub(layers, width, heads, hidden):
    sizes = {"num_hidden_layers": layers, "hidden_size": width, "num_attention_heads": heads}
    return {**LLAMA_BODY, **sizes, "intermediate_size": hidden, "rms_norm_eps": 1e-6, "tie_word_embeddings": False}


TEXT_MODELS = {
    "125m": opt_hub(12, 768, 12, 768, True),
    "350m": opt_hub(24, 1024, 16, 512, False),
    "1.3b": opt_hub(24, 2048, 32, 2048, True),
    "7b": llama_hub(32, 4096, 32, 11008),
    "13b": llama_hub(40, 5120, 40, 13824),
}


@pytest.mark.parametrize("size", PUBLISHED)
def test_a_published_size_fits_the_text_model_that_it_begins_with(size):
    found = family_of(TEXT_MODELS[size]).read_config(TEXT_MODELS[size])
    assert agreed(found, twist.body(size), 504, "folder").vocabulary == 504
    with pytest.raises(UserError, match="layers"):
        agreed(found, twist.body(size).replace(layers=3), 504, "folder")


@pytest.mark.skipif(not STORIES15M.is_dir(), reason="SLM_JAX_REAL_WEIGHTS names no folder with stories15m")
def test_the_tiny_twin_fits_the_real_weights():
    check_source(str(STORIES15M), twist.config("tiny").stage("lm").model)


def test_an_unknown_size_names_the_nearest():
    with pytest.raises(UserError, match=r"'350'.*did you mean '350m'"):
        twist.config("350")
