"""Sessions longer than the window: rings of the window's size give what a windowed whole pass gives."""

import re
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from slm_jax.core.errors import UserError
from slm_jax.nn.caches import KVCache, RingCache
from slm_jax.nn.stack import unstack
from slm_jax.sequence_models.presets import gpt2, llama
from tests.contracts import checks
from tests.optimised import XLAS_OWN

WINDOW, LENGTH = 4, 20
SMALL = {"vocabulary": 17, "layers": 2, "width": 16, "heads": 4, "hidden": 24, "window": WINDOW}
MODELS = {
    "rope": llama(**SMALL, kv_heads=2, rope_base=50.0, max_positions=None).make(),
    "learned": gpt2(**SMALL, max_positions=LENGTH).make(),
}
CAPACITY = {"rope": None, "learned": LENGTH}
IDS = jax.random.randint(jax.random.key(1), (3, LENGTH), 0, 17)
MASK = jnp.asarray(np.random.default_rng(0).random((3, LENGTH)) < np.array([[1.0], [0.8], [0.6]]))


@pytest.fixture(params=MODELS, scope="module")
def part(request: pytest.FixtureRequest) -> tuple:
    model = MODELS[request.param]
    params = checks.random_params(model, jax.random.key(2), IDS)
    run = jax.jit(lambda ids, mask: model.apply({"params": params}, ids, mask=mask))
    step = jax.jit(lambda ids, mask, state: model.apply({"params": params}, ids, state, mask, method="step"))
    return model, partial(packed, run), step, model.initial_state(3, CAPACITY[request.param])


def packed(run, ids, mask):
    """`run` on the real entries alone, side by side, put back where they stood: a window counts no holes."""
    order = jnp.argsort(~mask, axis=1, stable=True)
    outputs = run(jnp.take_along_axis(ids, order, 1), jnp.take_along_axis(mask, order, 1))
    return jnp.take_along_axis(outputs, jnp.argsort(order, axis=1)[..., None], 1)


@pytest.mark.parametrize("sizes", [(1,), (3,), (1, 3, 13)])
def test_five_windows_of_ragged_rows_equal_a_whole_pass(part, sizes):
    _, whole, step, state = part
    assert {type(cache) for cache in state} == {RingCache} and state[0].slots == WINDOW
    state = checks.stepwise_equals_whole(whole, step, state, IDS, MASK, sizes)
    assert state[0].length.tolist() == MASK.sum(1).tolist()
    assert state[0].length[0] == 5 * WINDOW
    assert step._cache_size() <= 6, "a program for each size of piece, however long the session"


def test_a_row_that_is_reset_in_the_middle_starts_anew_and_the_others_go_on(part):
    model, whole, step, state = part
    first, second = (slice(0, 9), slice(9, LENGTH))
    for t in range(9):
        _, state = step(IDS[:, t : t + 1], MASK[:, t : t + 1], state)
    state = model.reset(state, jnp.array([False, True, False]))
    pieces = []
    for t in range(9, LENGTH):
        y, state = step(IDS[:, t : t + 1], MASK[:, t : t + 1], state)
        pieces.append(y)
    found = jnp.concatenate(pieces, axis=1)
    wanted, alone = whole(IDS, MASK)[:, second], whole(IDS, MASK.at[:, first].set(False))[:, second]
    wanted = jnp.where(jnp.array([False, True, False])[:, None, None], alone, wanted)
    checks.assert_close(found, wanted, 1e-5, where=MASK[:, second])


def test_whether_a_ring_is_taken_depends_on_window_and_capacity():
    model = MODELS["rope"]
    short = model.initial_state(2, WINDOW)
    assert isinstance(short[0], KVCache) and short[0].window == WINDOW and short[0].capacity == WINDOW
    assert isinstance(model.initial_state(2, WINDOW + 1)[0], RingCache)
    with pytest.raises(UserError, match="capacity is None: a session without end needs a window"):
        MODELS["learned"].initial_state(2, None)
    with pytest.raises(UserError, match="capacity is None"):
        model.clone(config=model.config.replace(window=None)).initial_state(2, None)


@pytest.mark.parametrize("rows", [1, 3])
def test_a_loop_of_steps_copies_no_ring(rows):
    model = MODELS["rope"]
    params = checks.random_params(model, jax.random.key(2), IDS)

    def body(turn, carried, variables):
        ids, state = carried
        logits, state = model.apply(variables, ids, state, method="step")
        return logits.argmax(-1).astype(ids.dtype), state

    def run(params, ids, state):
        return jax.lax.fori_loop(0, 50, partial(body, variables={"params": unstack(params)}), (ids, state))

    lowered = jax.jit(run).lower(params, IDS[:rows, :1], model.initial_state(rows, None))
    loop, _ = lowered.compile(compiler_options=XLAS_OWN).as_text().split("\nENTRY ")
    ring = re.escape(f"f32[{rows},2,{WINDOW},4]")
    assert re.search(ring, loop)
    assert not re.findall(rf" = {ring}\S* copy\(", loop)
