import jax
import jax.numpy as jnp
import pytest

from slm_jax.core.errors import UserError
from slm_jax.core.trees import count_parameters
from slm_jax.sequence_models.decoder_config import DecoderConfig
from slm_jax.sequence_models.encoder_decoder import EncoderDecoderConfig
from slm_jax.sequence_models.presets import audiolm_stage, gpt2, gslm_transformer_lm_big, llama, mistral, opt, qwen2
from slm_jax.sequence_models.t5 import mt5, t5, t5_v1_1

PUBLISHED = [
    (gpt2(), 124_439_808),
    (gpt2("medium"), 354_823_168),
    (gpt2("large"), 774_030_080),
    (gpt2("xl"), 1_557_611_200),
    (opt("125m"), 125_239_296),
    (opt("350m"), 331_196_416),
    (opt("1.3b"), 1_315_758_080),
    (llama("7b"), 6_738_415_616),
    (llama("13b"), 13_015_864_320),
    (llama("3-8b"), 8_030_261_248),
    (qwen2("0.5b"), 494_032_768),
    (qwen2("1.5b"), 1_543_714_304),
    (qwen2("7b"), 7_615_616_512),
    (mistral("7b"), 7_241_732_096),
    (mistral("7b-v0.3"), 7_248_023_552),
    (t5("small"), 60_506_624),
    (t5("base"), 222_903_552),
    (t5("large"), 737_668_096),
    (t5("3b"), 2_851_598_336),
    (t5("11b"), 11_307_321_344),
    (t5_v1_1("small"), 76_961_152),
    (t5_v1_1("base"), 247_577_856),
    (t5_v1_1("large"), 783_150_080),
    (t5_v1_1("xl"), 2_849_757_184),
    (t5_v1_1("xxl"), 11_135_332_352),
    (mt5("small"), 300_176_768),
    (mt5("base"), 582_401_280),
    (mt5("large"), 1_229_581_312),
    (mt5("xl"), 3_742_619_648),
    (mt5("xxl"), 12_921_057_280),
]
"""Parameters of the published checkpoints, tied heads counted once."""


def parameters(config: DecoderConfig | EncoderDecoderConfig) -> int:
    ids = [jnp.zeros((1, 2), jnp.int32)] * (2 if isinstance(config, EncoderDecoderConfig) else 1)
    return count_parameters(jax.eval_shape(config.make().init, jax.random.key(0), *ids))


@pytest.mark.parametrize("config, published", PUBLISHED)
def test_parameter_counts_are_the_published_ones(config, published):
    assert parameters(config) == published


@pytest.mark.parametrize(("gated", "stack"), [(False, 12 * (4 * 1024**2 + 2 * 1024 * 4096)), (True, 12 * 16 * 1024**2)])
def test_a_stage_of_audiolm_has_the_weights_of_its_widths(gated, stack):
    norms, distances, both_tables = 25 * 1024, 32 * 16, 2 * 1_027 * 1024
    assert parameters(audiolm_stage(1_027, gated=gated)) == stack + norms + distances + both_tables


def test_gslm_has_the_parameters_of_its_recipe():
    config = gslm_transformer_lm_big(100)
    attention, mlp, norms = 4 * (1024 * 1024 + 1024), 2 * 1024 * 4096 + 4096 + 1024, 2 * 2 * 1024
    assert config.vocabulary == 104
    assert parameters(config) == 12 * (attention + mlp + norms) + 104 * 1024 + 2 * 1024 == 151_263_232


def test_overrides_reach_the_config_and_unknown_sizes_name_the_known():
    assert opt("350m", vocabulary=504).vocabulary == 504
    with pytest.raises(UserError, match=r"125m.*350m"):
        opt("120m")
    assert t5("base", width=96).decoder.head_scale == 96**-0.5 and mt5("xl", layers=2).encoder.layers == 2
    with pytest.raises(UserError, match=r"xl, xxl"):
        mt5("11b")
