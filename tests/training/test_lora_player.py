"""A player that owns adapters: they move, the base stays to the bit, and what was learned is what generation hears."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from slm_jax.core.trees import flatten_by_path, matching
from slm_jax.generation.decode import generate
from slm_jax.generation.sampling import SamplingConfig
from slm_jax.nn.int8_base import quantise_int8
from slm_jax.nn.linear_sites import linear_sites
from slm_jax.nn.lora import LoRAConfig, lora_initialise, merge_lora, with_lora
from slm_jax.objectives.next_token import NextTokenConfig
from slm_jax.parallel.mesh import MeshConfig
from slm_jax.parallel.sharding import unbox
from slm_jax.sequence_models.presets import llama
from slm_jax.training.optimizer import OptimizerConfig
from slm_jax.training.step import Player
from tests.multidevice.steps import take_steps

SHAPE = {"vocabulary": 17, "layers": 2, "width": 16, "heads": 2, "kv_heads": 1, "hidden": 24}
MODEL = llama(**SHAPE, max_positions=32, init_scale=0.2).make()
CONFIG = LoRAConfig(targets=".*/(query|value|up)", rank=4, dropout=0.1)
ADAPTED = with_lora(MODEL, CONFIG)
BATCH = {"ids": np.random.default_rng(0).integers(0, 17, (8, 12)).astype(np.int32)}
OPTIMIZER = OptimizerConfig(learning_rate=3e-2)


def in_floats(key):
    return MODEL.init(key, jnp.zeros((1, 2), jnp.int32))


def in_int8(key):
    return {"params": quantise_int8(in_floats(key)["params"], linear_sites(in_floats))}


@pytest.fixture(
    # in the fast suite tests/multidevice trains over a base in int8
    params=[in_floats, pytest.param(in_int8, marks=pytest.mark.slow(seconds=15))],
    ids=["floats", "int8"],
    scope="module",
)
def learned(request):
    initialise = lora_initialise(request.param, CONFIG)
    objective = NextTokenConfig().make(ADAPTED)
    players = [Player(name="adapters", objective=objective, optimizer=OPTIMIZER, owns=matching("lora/"))]
    state, outputs = take_steps(initialise, players, [BATCH] * 6, MeshConfig(), jax.devices()[:1])
    start = jax.jit(lambda key: unbox(initialise(jax.random.fold_in(key, 0))))(jax.random.key(0))
    return start, state, outputs


def test_adapters_learn_and_the_base_stays_to_the_bit(learned):
    start, state, outputs = learned
    losses = [float(out.sums["loss"][0] / out.sums["loss"][1]) for out in outputs]
    assert losses[-1] < losses[0] - 0.1
    before, after = flatten_by_path(start["params"]), flatten_by_path(state.params)
    for path, leaf in after.items():
        np.testing.assert_array_equal(leaf, before[path], err_msg=path)
    moved = flatten_by_path(state.variables["lora"])
    assert all(np.abs(leaf - flatten_by_path(start["lora"])[path]).max() > 1e-3 for path, leaf in moved.items())
    assert {path.split("/")[-1] for path in moved} == {"a", "b"}


def test_generation_hears_the_adapters(learned):
    _, state, _ = learned
    greedy = SamplingConfig(max_new=8, temperature=0.0)
    prompts, mask = BATCH["ids"][:4, :3], np.ones((4, 3), bool)
    adapted = generate(ADAPTED, state.served, prompts, mask, jax.random.key(1), greedy)
    merged = merge_lora(state.params, state.variables["lora"], CONFIG)
    wanted = generate(MODEL, merged, prompts, mask, jax.random.key(1), greedy)
    np.testing.assert_array_equal(adapted.ids, wanted.ids)
    np.testing.assert_allclose(adapted.log_probs, wanted.log_probs, atol=1e-4)
    without = generate(ADAPTED.at(default=0.0), state.served, prompts, mask, jax.random.key(1), greedy)
    assert (np.asarray(without.ids) != np.asarray(adapted.ids)).any()
