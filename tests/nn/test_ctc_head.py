"""The head of CTC: whatever stands in padding, and a linear map alone unless it has hidden channels."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from slm_jax.core.errors import UserError
from slm_jax.nn.ctc_head import CTCHeadConfig
from tests.contracts.checks import random_params

FRAMES = np.random.default_rng(0).standard_normal((2, 9, 6)).astype(np.float32)
MASK = np.arange(9) < np.array([9, 5])[:, None]


@pytest.fixture(scope="module")
def drawn():
    config = CTCHeadConfig(width=6, classes=4, hidden=8)
    return config, random_params(config.make(), jax.random.key(0), jnp.asarray(FRAMES))


def scored(config, params, frames, mask):
    return np.asarray(config.make().apply({"params": params}, jnp.asarray(frames), jnp.asarray(mask)))


def test_padding_has_no_effect_on_what_is_real(drawn):
    config, params = drawn
    alone = scored(config, params, FRAMES[1:, :5], MASK[1:, :5])
    loud = scored(config, params, np.where(MASK[..., None], FRAMES, 99.0), MASK)
    np.testing.assert_allclose(loud[1, :5], alone[0], atol=1e-5)


def test_without_hidden_channels_it_is_a_linear_map():
    config = CTCHeadConfig(width=6, classes=4)
    params = random_params(config.make(), jax.random.key(1), jnp.asarray(FRAMES))
    assert params.keys() == {"kernel", "bias"}
    np.testing.assert_allclose(
        scored(config, params, FRAMES, MASK), FRAMES @ params["kernel"] + params["bias"], atol=1e-5
    )


@pytest.mark.parametrize(("field", "match"), [({"classes": 1}, "classes is 1"), ({"hidden": -1}, "hidden is -1")])
def test_a_head_of_nothing_is_refused(field, match):
    with pytest.raises(UserError, match=match):
        CTCHeadConfig(**{"width": 6, "classes": 4, **field})
