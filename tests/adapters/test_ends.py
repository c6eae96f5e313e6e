"""Where the two vectors stand, and what is refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from slm_jax.adapters.ends import EndsConfig
from slm_jax.core.errors import UserError
from slm_jax.core.types import Frames


def test_vectors_stand_around_the_real_frames():
    values = jnp.arange(24.0).reshape(3, 4, 2)
    mask = jnp.arange(4) < jnp.array([[4], [1], [0]])
    table = jnp.array([[-1.0, -2.0], [-3.0, -4.0]])
    out = EndsConfig(width=2).make().apply({"params": {"vectors": {"embedding": table}}}, Frames(values, mask))
    np.testing.assert_array_equal(out.values[0], np.concatenate([table[:1], values[0], table[1:]]))
    np.testing.assert_array_equal(out.values[1, :3], np.stack([table[0], values[1, 0], table[1]]))
    assert np.asarray(out.mask).sum(1).tolist() == [6, 3, 0]


def test_frames_of_another_width_are_refused():
    frames = Frames(jnp.zeros((1, 2, 3)), jnp.ones((1, 2), bool))
    with pytest.raises(UserError, match="width is 2: the frames have 3 channels"):
        EndsConfig(width=2).make().init(jax.random.key(0), frames)
