import jax
import jax.numpy as jnp
import pytest

from slm_jax.core.errors import UserError
from slm_jax.core.trees import count_parameters
from slm_jax.sequence_models.decoder_config import DecoderConfig
from slm_jax.sequence_models.presets import gpt2, gslm_transformer_lm_big, llama, opt, qwen2

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
]
"""Parameters of the published checkpoints, tied heads counted once."""


def parameters(config: DecoderConfig) -> int:
    return count_parameters(jax.eval_shape(config.make().init, jax.random.key(0), jnp.zeros((1, 2), jnp.int32)))


@pytest.mark.parametrize("config, published", PUBLISHED)
def test_parameter_counts_are_the_published_ones(config, published):
    assert parameters(config) == published


def test_gslm_has_the_parameters_of_its_recipe():
    config = gslm_transformer_lm_big(100)
    attention, mlp, norms = 4 * (1024 * 1024 + 1024), 2 * 1024 * 4096 + 4096 + 1024, 2 * 2 * 1024
    assert config.vocabulary == 104
    assert parameters(config) == 12 * (attention + mlp + norms) + 104 * 1024 + 2 * 1024 == 151_263_232


def test_overrides_reach_the_config_and_unknown_sizes_name_the_known():
    assert opt("350m", vocabulary=504).vocabulary == 504
    with pytest.raises(UserError, match=r"125m.*350m"):
        opt("120m")
