from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from slm_jax.core.errors import UserError
from slm_jax.generation.advance import StepIn, decoding
from slm_jax.generation.decode import generate
from slm_jax.generation.prompts import row_keys
from slm_jax.generation.rules import Rules, rules_of
from slm_jax.generation.sampling import SamplingConfig
from tests.generation.small_models import IDS, LENGTHS, MASK, ONE, ONE_PARAMS, SIZES, STREAMS, THREE, THREE_PARAMS, V

CONFIG = SamplingConfig(max_new=10, temperature=1.0)
KEYS = jax.random.split(jax.random.key(4), 3)


def made(config=CONFIG, **more):
    return generate(ONE, ONE_PARAMS, IDS, MASK, KEYS, config, **more)


@partial(jax.jit, static_argnums=0)
def whole_log_probs(model, params, ids):
    return jax.nn.log_softmax(model.apply({"params": params}, ids[None])[0], axis=-1)


def row_log_probs(model, params, row):
    """Of one row read at once, filled up to one length for all."""
    ids = np.zeros((16, *row.shape[1:]), np.int32)
    ids[: len(row)] = row
    return np.asarray(whole_log_probs(model, params, ids))[: len(row)]


def test_every_stream_is_drawn_and_scored_by_the_model_after_what_was_written():
    out = generate(THREE, THREE_PARAMS, STREAMS, MASK, KEYS, CONFIG.replace(temperature=0.0))
    assert out.ids.shape == (3, 10, 3)
    for row, length in enumerate(LENGTHS):
        whole = np.concatenate([STREAMS[row, :length], out.ids[row]])
        log_probs = row_log_probs(THREE, THREE_PARAMS, whole)[length - 1 : -1]
        np.testing.assert_array_equal(log_probs.argmax(-1), out.ids[row])
        np.testing.assert_allclose(log_probs.max(-1), out.log_probs[row], atol=1e-4)


def test_streams_draw_apart_and_stay_within_their_sizes():
    config = CONFIG.replace(max_new=40, temperature=8.0)
    ids = np.asarray(generate(THREE, THREE_PARAMS, STREAMS, MASK, KEYS, config).ids).reshape(-1, 3)
    assert (ids < np.array(SIZES)).all()
    assert ids[:, 0].max() >= 12, "the first stream has more ids than the others"
    assert (ids[:, 1] != ids[:, 2]).mean() > 0.5


def test_each_stream_draws_from_as_many_ids_as_it_is_told():
    config = CONFIG.replace(temperatures=(8.0,) * 3, top_ks=(1, 2, 0))
    out = generate(THREE, THREE_PARAMS, STREAMS, MASK, KEYS, config)
    ranks = []
    for row, length in enumerate(LENGTHS):
        whole = np.concatenate([STREAMS[row, :length], out.ids[row]])
        log_probs = row_log_probs(THREE, THREE_PARAMS, whole)[length - 1 : -1]
        better = log_probs > np.take_along_axis(log_probs, np.asarray(out.ids)[row][..., None], -1)
        ranks.append(better.sum(-1))
    ranks = np.concatenate(ranks)
    assert ranks[:, 0].max() == 0 and ranks[:, 1].max() == 1 and ranks[:, 2].max() > 1
    with pytest.raises(UserError, match=r"top_ks is \(1, 2\): one for each of the 3 streams"):
        decoding(THREE, config.replace(top_ks=(1, 2)))
    with pytest.raises(UserError, match="top_k is 3"):
        config.replace(top_k=3)


def test_ids_are_forced_where_they_are_given_and_what_follows_knows_them():
    free = made()
    forced = np.full((3, 10), -1)
    forced[0, 2:5], forced[2, 0] = [7, 8, 9], 11
    out = made(forced=forced[:, :6])
    ids = np.asarray(out.ids)
    assert ids[0, 2:5].tolist() == [7, 8, 9]
    assert ids[2, 0] == 11
    np.testing.assert_array_equal(ids[0, :2], free.ids[0, :2])
    np.testing.assert_array_equal(ids[1], free.ids[1])
    whole = row_log_probs(ONE, ONE_PARAMS, np.concatenate([IDS[0, :6], ids[0]]))[5:-1]
    np.testing.assert_allclose(np.take_along_axis(whole, ids[0][:, None], 1)[:, 0], out.log_probs[0], atol=1e-4)
    known = generate(ONE, ONE_PARAMS, np.append(IDS[2, :4], 11)[None], np.ones((1, 5), bool), KEYS[2:], CONFIG)
    np.testing.assert_array_equal(known.ids[0, :9], ids[2, 1:])  # a forced step spends no draw


def test_one_stream_is_forced_while_the_others_are_free():
    forced = np.full((3, 10, 3), -1)
    forced[:, :, 1] = np.arange(10)
    out = generate(THREE, THREE_PARAMS, STREAMS, MASK, KEYS, CONFIG, forced=forced)
    np.testing.assert_array_equal(out.ids[..., 1], forced[..., 1])
    assert len(np.unique(out.ids[..., 2])) > 3


@pytest.mark.parametrize("cycle, phases", [(1, [0, 1, 2, 2, 2, 2, 2]), (2, [0, 1, 2, 1, 2, 1, 2])])
def test_what_is_legal_goes_by_phase(cycle, phases):
    legal = (np.arange(V) // 8)[None, None] == np.arange(3)[:, None, None]
    rules = Rules(legal, np.array([], np.int32), cycle)
    ids = np.zeros((1, 1), int)
    out = generate(ONE, ONE_PARAMS, ids, ids == 0, KEYS[:1], CONFIG.replace(temperature=5.0), rules=rules)
    assert (np.asarray(out.ids[0])[:6] // 8).tolist() == phases[1:], "a prompt of one entry was phase 0"


def test_each_of_several_ends_stops_a_row():
    config = CONFIG.replace(temperature=3.0, end=3, ends=(5, 9), min_new=2)
    out = generate(ONE, ONE_PARAMS, np.repeat(IDS, 8, 0), np.repeat(MASK, 8, 0), jax.random.key(0), config)
    lengths = np.asarray(out.mask).sum(1)
    last = {int(out.ids[row, length - 1]) for row, length in enumerate(lengths) if length < 10}
    assert last == {3, 5, 9}
    assert lengths.min() > 2
    for row, length in enumerate(lengths):
        assert not np.isin(out.ids[row, : length - 1], [3, 5, 9]).any()


def test_vectors_as_prompts_give_what_their_ids_give():
    vectors = ONE.apply({"params": ONE_PARAMS}, jnp.asarray(IDS), method="embed")
    wanted, out = made(), generate(ONE, ONE_PARAMS, np.asarray(vectors), MASK, KEYS, CONFIG)
    np.testing.assert_array_equal(out.ids, wanted.ids)
    np.testing.assert_allclose(out.log_probs, wanted.log_probs, atol=1e-4)


def test_guidance_moves_log_probabilities_away_from_those_without_the_condition():
    others, other_mask = IDS[:, ::-1][:, :3], np.ones((3, 3), bool)
    greedy = CONFIG.replace(temperature=0.0)
    out = made(greedy.replace(guidance=2.5), unconditional=(others, other_mask))
    plain = made(greedy)
    for row, length in enumerate(LENGTHS):
        ids = np.asarray(out.ids[row])
        with_it = row_log_probs(ONE, ONE_PARAMS, np.append(IDS[row, :length], ids))[length - 1 : -1]
        without = row_log_probs(ONE, ONE_PARAMS, np.append(others[row], ids))[2:-1]
        assert (without + 2.5 * (with_it - without)).argmax(-1).tolist() == ids.tolist()
        np.testing.assert_allclose(np.take_along_axis(with_it, ids[:, None], 1)[:, 0], out.log_probs[row], atol=1e-4)
    assert (np.asarray(out.ids) != np.asarray(plain.ids)).any()


def test_all_variables_may_come_instead_of_params():
    wanted = made()
    np.testing.assert_array_equal(generate(ONE, {"params": ONE_PARAMS}, IDS, MASK, KEYS, CONFIG).ids, wanted.ids)


def test_a_row_that_rests_keeps_its_state_and_a_reset_row_is_new():
    steps = decoding(ONE, CONFIG.replace(repetition_penalty=1.1))
    advance = jax.jit(lambda told, state: steps.advance({"params": ONE_PARAMS}, told, state, KEYS))
    start = steps.initial_state(3, 16)
    _, state = advance(StepIn(jnp.array([[3], [4], [5]]), jnp.ones(3, bool)), start)
    out, after = advance(StepIn(jnp.full((3, 1), -1), jnp.array([True, False, True])), state)
    assert out.ids[1, 0] == -1
    assert float(out.log_probs[1, 0]) == 0
    for before, now in zip(jax.tree.leaves(state), jax.tree.leaves(after), strict=True):
        np.testing.assert_array_equal(now[1], before[1])
    fresh = steps.reset(after, jnp.array([False, True, False]))
    for name in ("last", "written", "drawn", "seen", "ended"):
        np.testing.assert_array_equal(getattr(fresh, name)[1], getattr(start, name)[1])
        np.testing.assert_array_equal(getattr(fresh, name)[::2], getattr(after, name)[::2])


def test_a_config_as_arrays():
    rules = rules_of(SamplingConfig(end=2, ends=(4,), forbidden=(1,)), (6, 3))
    assert rules.legal[0].tolist() == [[True, False, True, True, True, True], [True, True, True, False, False, False]]
    assert rules.are_ends(jnp.array([1, 2, 3, 4])).tolist() == [False, True, False, True]
    assert rules_of(SamplingConfig(), (6,)).legal is None


LEGAL = np.ones((2, 1, V), bool)
NO_ENDS = np.array([], np.int32)


@pytest.mark.parametrize(
    "given, message",
    [
        (lambda: made(rules=Rules(LEGAL[..., 1:], NO_ENDS)), r"legal is \(2, 1, 23\).*\[P, 1, 24\]"),
        (lambda: made(rules=Rules(LEGAL, NO_ENDS, 3)), "cycle is 3"),
        (lambda: made(CONFIG.replace(ends=(24,))), r"end is \[24\]"),
        (lambda: row_keys(jnp.zeros(2, jnp.uint32), 3), "jax.random.key"),
        (lambda: generate(ONE, ONE_PARAMS, np.ones((3, 6, 8)), MASK, KEYS, CONFIG), "width 32"),
        (lambda: generate(THREE, THREE_PARAMS, IDS[..., None], MASK, KEYS, CONFIG), "3 streams"),
    ],
)
def test_what_does_not_fit_the_model_is_refused(given, message):
    with pytest.raises(UserError, match=message):
        given()
