"""Means over windows: of real frames alone, the last of them shorter."""

import jax.numpy as jnp
import numpy as np
import pytest

from slm_jax.core.errors import UserError
from slm_jax.encoders.ssl_classifier import SSLClassifierConfig, window_means
from tests.shapes import ENCODERS


def test_windows_are_means_of_what_is_real():
    values = jnp.asarray(np.arange(14, dtype=np.float32).reshape(2, 7, 1))
    mask = jnp.asarray(np.arange(7) < np.asarray([[7], [4]]))
    poisoned = jnp.where(mask[..., None], values, jnp.nan)
    means, real = window_means(poisoned, mask, 3)
    np.testing.assert_allclose(means[..., 0], [[1, 4, 6], [8, 10, 0]])
    np.testing.assert_array_equal(real, [[True, True, True], [True, True, False]])
    whole, real = window_means(poisoned, mask, None)
    np.testing.assert_allclose(whole[..., 0], [[3], [8.5]])
    assert real.shape == (2, 1) and real.all()


@pytest.mark.parametrize(("field", "value"), [("classes", 1), ("projection", 0), ("window", 0)])
def test_what_makes_no_sense_is_refused(field, value):
    config = SSLClassifierConfig(encoder=ENCODERS["log_mel"], classes=2)
    with pytest.raises(UserError, match=f"{field} is {value}"):
        config.replace(**{field: value})
