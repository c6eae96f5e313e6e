"""CIF as an adapter: in training just so many tokens as are wanted, else what its weights add up to."""

import jax
import jax.numpy as jnp
import numpy as np

from slm_jax.adapters.cif import CIFConfig
from slm_jax.core.types import Frames
from tests.contracts.checks import random_params

CONFIG = CIFConfig(width=5, keep=0.8, start=0.4)
FRAMES = Frames(jax.random.normal(jax.random.key(0), (3, 12, 6)), jnp.arange(12) < jnp.array([[12], [7], [12]]))


def test_with_targets_just_so_many_tokens_fire_and_up_to_the_limit_without_them_what_the_weights_add_up_to():
    module = CONFIG.make()
    params = random_params(module, jax.random.key(1), FRAMES)

    @jax.jit
    def run(params, frames, targets):
        weights = module.apply({"params": params}, frames, method="weights")
        free, told = (module.apply({"params": params}, frames, targets=given) for given in (None, targets))
        return weights, free, told

    weights, free, told = run(params, FRAMES, jnp.array([3, 5, 12]))
    assert told.mask.sum(1).tolist() == [3, 5, CONFIG.frames_out(12)] and told.values.shape == (3, 10, 5)
    assert (np.asarray(weights)[~np.asarray(FRAMES.mask)] == 0).all()
    limits = np.array([CONFIG.frames_out(int(n)) for n in FRAMES.mask.sum(1)])
    wanted = np.clip(np.floor(np.asarray(weights).sum(1) + 0.5), 1, limits)
    assert free.mask.sum(1).tolist() == wanted.tolist() != told.mask.sum(1).tolist()
