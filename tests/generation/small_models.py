"""Two small decoders that the tests of decoding share, one of one stream and one of three, with drawn weights."""

import jax
import jax.numpy as jnp
import numpy as np

from slm_jax.sequence_models.multi_stream import MultiStreamConfig
from slm_jax.sequence_models.presets import llama
from tests.contracts.checks import random_params

V = 24
ONE = llama("7b", vocabulary=V, layers=2, width=32, heads=4, kv_heads=2, hidden=48, max_positions=64).make()
ONE_PARAMS = random_params(ONE, jax.random.key(1), jnp.zeros((1, 2), jnp.int32))
SIZES = (24, 12, 12)
THREE = MultiStreamConfig(streams=SIZES, body=ONE.config.replace(tied_head=True)).make()
THREE_PARAMS = random_params(THREE, jax.random.key(2), jnp.zeros((1, 2, 3), jnp.int32))
LENGTHS = np.array([6, 2, 4])
MASK = np.arange(6) < LENGTHS[:, None]
IDS = np.random.default_rng(0).integers(0, V, (3, 6))
STREAMS = np.random.default_rng(1).integers(0, SIZES, (3, 6, 3))
