"""A decoder that listens to a context: whole, step by step, with rows of one context beside each other."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from slm_jax.core.errors import UserError
from slm_jax.core.types import Frames
from slm_jax.sequence_models.decoder_config import DecoderConfig
from tests.contracts import checks

V, E = 23, 10
SMALL = {"vocabulary": V, "layers": 2, "width": 16, "heads": 4, "hidden": 24, "init_scale": 0.3, "context_width": E}
CONFIGS = {
    "whisper": DecoderConfig(**SMALL, key_bias=False, max_positions=16),
    "grouped, rope, window": DecoderConfig(**SMALL, kv_heads=2, positions="rope", norm="rms", window=3, norm_order="post"),
}
IDS = jax.random.randint(jax.random.key(1), (3, 7), 0, V)
MASK = jnp.arange(7) < jnp.array([7, 4, 6])[:, None]
REAL = jnp.arange(5) < jnp.array([5, 2, 4])[:, None]
CONTEXT = Frames(jax.random.normal(jax.random.key(3), (3, 5, E)), REAL)


@pytest.fixture(params=CONFIGS, scope="module")
def part(request: pytest.FixtureRequest) -> tuple:
    """Model, parameters, jitted whole, step and prefill, and a state that listens and has read nothing."""
    model = CONFIGS[request.param].make()
    params = checks.random_params(model, jax.random.key(2), IDS, context=CONTEXT)
    run, advance, told = (jax.jit(partial(function, model, params)) for function in (whole, step, prefill))
    nothing = jnp.zeros((3, 1), bool)
    return model, run, advance, told, told(IDS[:, :1], nothing, model.initial_state(3, 10))[1]


def whole(model, params, ids, mask, context=CONTEXT):
    return model.apply({"params": params}, ids, mask=mask, context=context)


def step(model, params, ids, mask, state):
    return model.apply({"params": params}, ids, state, mask, method="step")


def prefill(model, params, ids, mask, state):
    return model.apply({"params": params}, ids, state, mask, CONTEXT, method="prefill")


def picked(rows):
    """The context of some rows."""
    return jax.tree.map(lambda leaf: leaf[rows], CONTEXT)


def test_stepwise_equals_whole(part):
    _, run, advance, _, state = part
    state = checks.stepwise_equals_whole(run, advance, state, IDS, MASK, sizes=(1, 3))
    assert state[0].own.length.tolist() == [7, 4, 6]
    assert state[0].context.mask.tolist() == REAL.tolist()


def test_masked_rows_keep_their_state(part):
    _, _, advance, _, state = part
    checks.masked_rows_keep_state(advance, state, IDS)


def test_a_row_that_is_emptied_listens_to_nothing_until_it_is_told_again(part):
    model, _, advance, told, fresh = part
    everyone = jnp.ones((3, 1), bool)
    _, used = advance(IDS[:, :1], everyone, fresh)
    emptied = model.reset(used, jnp.array([True, False, False]))
    assert emptied[0].context.mask.sum(1).tolist() == [0, 2, 4] and emptied[1].own.length.tolist() == [0, 1, 1]
    logits, _ = advance(IDS[:, 1:2], everyone, emptied)
    kept, _ = advance(IDS[:, 1:2], everyone, used)
    checks.assert_close(logits[1:], kept[1:], 1e-6)
    assert np.isfinite(np.asarray(logits)).all()
    again, _ = told(IDS[:, 1:2], everyone, emptied)
    wanted, _ = advance(IDS[:, 1:2], everyone, fresh)
    checks.assert_close(again[0], wanted[0, 0], 1e-5)


def test_padding_of_ids_and_of_the_context_has_no_effect(part):
    run = part[1]
    checks.padding_has_no_effect(run, IDS, MASK, garbage=(IDS + 5) % V)
    spoilt = Frames(jnp.where(REAL[..., None], CONTEXT.values, 7.0), REAL)
    checks.assert_close(run(IDS, MASK, spoilt), run(IDS, MASK), 1e-6, where=MASK)
    longer = Frames(jnp.pad(CONTEXT.values, ((0, 0), (0, 3), (0, 0))), jnp.pad(REAL, ((0, 0), (0, 3))))
    checks.assert_close(run(IDS, MASK, longer), run(IDS, MASK), 1e-5, where=MASK)
    other = Frames(CONTEXT.values.at[:, 0].add(1.0), REAL)
    moved = np.abs(np.asarray(run(IDS, MASK, other) - run(IDS, MASK)))[np.asarray(MASK)]
    assert (moved.max(-1) > 1e-3).all(), "every step listens"


def test_rows_stand_alone(part):
    run = part[1]
    together = run(IDS, MASK)
    for row, (length, heard) in enumerate(((7, 5), (4, 2), (6, 4))):
        context = Frames(CONTEXT.values[row : row + 1, :heard], REAL[row : row + 1, :heard])
        alone = run(IDS[row : row + 1, :length], MASK[row : row + 1, :length], context)
        checks.assert_close(together[row, :length], alone[0], 1e-5)


def test_several_rows_listen_to_one_context(part):
    """Beams: the state of six rows keeps the contexts of three, in their order."""
    _, run, advance, _, one = part
    kept = jax.tree.map(lambda leaf: jnp.repeat(leaf, 2, 0), one)
    folded = tuple(type(cache)(twice.own, cache.context) for cache, twice in zip(one, kept, strict=True))
    ids = jnp.concatenate([IDS, (IDS + 3) % V], axis=1).reshape(6, 7)
    state = checks.stepwise_equals_whole(
        lambda ids, mask: run(ids, mask, picked(jnp.arange(6) // 2)),
        advance,
        folded,
        ids,
        jnp.repeat(MASK, 2, 0),
        sizes=(2, 1),
    )
    assert state[0].context.keys.shape[0] == 3 and state[0].own.keys.shape[0] == 6


def test_scanned_unrolled_and_recomputed_are_one_function():
    scanned, other = (CONFIGS["whisper"].replace(unroll=u, remat=not u).make() for u in (False, True))
    params = checks.random_params(scanned, jax.random.key(2), IDS, context=CONTEXT)

    def loss(model, params):
        return jnp.square(whole(model, params, IDS, MASK)).mean()

    checks.same_function(partial(loss, other), partial(loss, scanned), params)


def test_a_scanned_stack_keeps_its_context_too():
    model = CONFIGS["whisper"].replace(unroll=False).make()
    params = checks.random_params(model, jax.random.key(2), IDS, context=CONTEXT)
    logits, state = jax.jit(partial(prefill, model, params))(IDS[:, :4], MASK[:, :4], model.initial_state(3, 10))
    wanted = jax.jit(partial(whole, model, params))(IDS, MASK)
    checks.assert_close(logits, wanted[:, 3], 1e-5)
    rest, _ = jax.jit(partial(step, model, params))(IDS[:, 4:], MASK[:, 4:], state)
    checks.assert_close(rest, wanted[:, 4:], 1e-5, where=MASK[:, 4:])


def test_gradients_reach_every_weight_and_bfloat16_is_near():
    model = CONFIGS["whisper"].make()
    params = checks.random_params(model, jax.random.key(2), IDS, context=CONTEXT)
    checks.gradients_are_finite(lambda params: jnp.square(whole(model, params, IDS, MASK)).mean(), params)
    low = model.clone(config=model.config.replace(dtype="bfloat16"))
    runs = (jax.jit(partial(whole, one, params)) for one in (low, model))
    checks.runs_in_bfloat16(*runs, IDS, MASK)


def test_layers_are_collected_with_a_context():
    model = CONFIGS["whisper"].make()
    params = checks.random_params(model, jax.random.key(2), IDS, context=CONTEXT)

    def both(model):
        states = model.hidden_states(IDS, mask=MASK, context=CONTEXT)
        return states, model.head(model.final_norm(states[-1])), model(IDS, mask=MASK, context=CONTEXT)

    states, last, wanted = jax.jit(lambda params: model.apply({"params": params}, method=both))(params)
    assert states.shape == (3, 3, 7, 16)
    checks.assert_close(last, wanted, 1e-5, where=MASK)


DEAF = CONFIGS["whisper"].replace(context_width=None).make()
LISTENER = CONFIGS["whisper"].make()
NARROW = Frames(CONTEXT.values[..., :4], REAL)
REFUSED = {
    "missing": (LISTENER, None, r"context \(rows, width\) is None: must be \(3, 10\)"),
    "narrow": (LISTENER, NARROW, r"is \(3, 4\): must be \(3, 10\)"),
    "fewer rows": (LISTENER, picked(slice(0, 2)), r"is \(2, 10\): must be \(3, 10\)"),
    "unasked": (DEAF, CONTEXT, r"is \(3, 10\): this decoder listens to none"),
}


@pytest.mark.parametrize("name", REFUSED)
@pytest.mark.parametrize("method", ["whole", "prefill"])
def test_a_context_that_does_not_fit_is_refused(name, method):
    model, context, message = REFUSED[name]
    given = {"context": context} if method == "whole" else {"state": model.initial_state(3, 10), "context": context}
    with pytest.raises(UserError, match=message):
        jax.eval_shape(
            lambda: model.init(jax.random.key(0), IDS, **given, method="__call__" if method == "whole" else "prefill")
        )


def test_a_step_before_there_is_a_context_is_refused():
    with pytest.raises(UserError, match="context"):
        jax.eval_shape(lambda: LISTENER.init(jax.random.key(0), IDS, LISTENER.initial_state(3, 10), method="step"))
