import chex
import jax
import numpy as np
import pytest

from slm_jax.core.errors import UserError
from slm_jax.generation.advance import decoding
from slm_jax.generation.decode import generate
from slm_jax.generation.sampling import SamplingConfig
from slm_jax.serving import session
from slm_jax.serving.session import Session
from tests.generation.small_models import IDS, LENGTHS, MASK, ONE, ONE_PARAMS, STREAMS, THREE, THREE_PARAMS

GREEDY = SamplingConfig(max_new=10, temperature=0.0, end=3)
SAMPLED = SamplingConfig(max_new=10, temperature=1.3, top_k=9, repetition_penalty=1.2, end=3, min_new=2)
KEYS = jax.random.split(jax.random.key(5), 3)
CASES = {
    "greedy": (ONE, ONE_PARAMS, IDS, GREEDY),
    "sampled": (ONE, ONE_PARAMS, IDS, SAMPLED),
    "three streams": (THREE, THREE_PARAMS, STREAMS, SAMPLED),
}


class Talk:
    """Rows that are pushed now and then: first their prompts, then free; keeps what each wrote freely."""

    def __init__(self, opened, prompts):
        self.opened, self.prompts = opened, prompts.reshape(*prompts.shape[:2], -1)
        self.at, self.said = np.zeros(3, int), [[], [], []]

    def push(self, active):
        ids = np.full((3, self.prompts.shape[-1]), -1, np.int32)
        for row in range(3):
            if self.at[row] < LENGTHS[row]:
                ids[row] = self.prompts[row, self.at[row]]
        out = self.opened.push(ids, active)
        for row in np.flatnonzero(active & (np.asarray(out.ids)[:, 0] >= 0)):
            if self.at[row] >= LENGTHS[row] and len(self.said[row]) < 10:
                self.said[row].append((np.asarray(out.ids[row]).tolist(), np.asarray(out.log_probs[row])))
            self.at[row] += 1

    def reset(self, rows):
        self.opened.reset(rows)
        for row in np.flatnonzero(rows):
            self.at[row], self.said[row] = 0, []


@pytest.mark.parametrize("name", CASES)
def test_tokens_of_a_session_are_those_offline_however_its_rows_start_rest_and_are_reset(name, monkeypatch):
    model, params, prompts, config = CASES[name]
    chex.clear_trace_counter()
    counted = chex.assert_max_traces(session.push_step.__wrapped__, n=1)
    monkeypatch.setattr(session, "push_step", jax.jit(counted, donate_argnums=2))
    talk = Talk(Session(decoding(model, config), params, 3, 32, KEYS), prompts)
    rng = np.random.default_rng(7)
    for turn in range(60):
        if turn == 9:
            talk.reset(np.array([False, True, False]))
        if turn == 14:
            talk.reset(np.array([True, False, False]))
        active = (rng.random(3) < 0.7) & (talk.at < LENGTHS + 10)
        active[2] &= turn > 3
        talk.push(active)
    offline = generate(model, params, prompts, MASK, KEYS, config)
    lengths = np.asarray(offline.mask).sum(1)
    assert [len(said) for said in talk.said] == lengths.tolist()
    for row, length in enumerate(lengths):
        wanted = np.asarray(offline.ids[row, :length]).reshape(length, -1)
        assert [ids for ids, _ in talk.said[row]] == wanted.tolist()
        log_probs = np.stack([log_probs for _, log_probs in talk.said[row]])
        np.testing.assert_allclose(
            log_probs, np.asarray(offline.log_probs[row, :length]).reshape(length, -1), atol=1e-4
        )


def test_a_row_that_rests_does_not_change_and_the_old_state_is_given_away():
    opened = Session(decoding(ONE, SAMPLED), ONE_PARAMS, 3, 32, KEYS, start=(1,))
    opened.push()
    before, kept = opened._state, jax.tree.map(lambda x: np.array(x[1]), opened._state)
    out = opened.push(active=np.array([True, False, True]))
    assert np.asarray(out.ids)[:, 0].tolist()[1] == -1
    assert (np.asarray(out.ids)[[0, 2]] >= 0).all()
    chex.assert_trees_all_equal(jax.tree.map(lambda x: np.array(x[1]), opened._state), kept)
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(before.caches))
    assert np.asarray(opened._state.written).tolist() == [2, 1, 2]


def test_an_end_that_is_drawn_rests_a_row_until_its_reset_and_one_that_is_forced_does_not():
    opened = Session(decoding(ONE, SAMPLED.replace(min_new=0, ends=tuple(range(24)))), ONE_PARAMS, 3, 8, KEYS)
    opened.push(np.array([3, 3, 3]))
    assert not opened.ended.any()
    opened.push(np.array([-1, 5, -1]))
    assert opened.ended.tolist() == [True, False, True]
    out = opened.push(np.array([1, 1, 1]))
    assert np.asarray(out.ids)[:, 0].tolist() == [-1, 1, -1]
    opened.reset(np.array([True, False, False]))
    assert opened.ended.tolist() == [False, False, True]
    assert np.asarray(opened.push(np.array([1, 1, 1])).ids)[:, 0].tolist() == [1, 1, -1]


def test_with_a_start_a_row_draws_from_its_first_step_and_new_keys_make_new_rows():
    config = SamplingConfig(max_new=8, temperature=2.0)
    offline = np.asarray(generate(ONE, ONE_PARAMS, np.ones((3, 1), int), np.ones((3, 1), bool), KEYS, config).ids)
    opened = Session(decoding(ONE, config), ONE_PARAMS, 3, 32, KEYS, start=(1,))
    assert np.stack([opened.push().ids[:, 0] for _ in range(8)], 1).tolist() == offline.tolist()
    opened.reset(np.array([True, True, False]), jax.random.split(jax.random.key(9), 3))
    again = np.stack([opened.push().ids[:, 0] for _ in range(8)], 1)
    assert (again[:2] != offline[:2]).any(1).all()
    opened.reset(np.ones(3, bool), KEYS)
    assert np.stack([opened.push().ids[:, 0] for _ in range(8)], 1).tolist() == offline.tolist()


def test_pushes_that_cannot_be_are_refused_with_their_rows():
    opened = Session(decoding(ONE, GREEDY.replace(end=None)), ONE_PARAMS, 3, 4, KEYS)
    with pytest.raises(UserError, match=r"new rows is \[0, 2\].*force them"):
        opened.push(np.array([-1, 4, -1]))
    with pytest.raises(UserError, match="24"):
        opened.push(np.array([0, 24, 0]))
    with pytest.raises(UserError, match="rows and streams"):
        opened.push(np.zeros((3, 2), int))
    with pytest.raises(UserError, match="one flag"):
        opened.push(np.zeros(3, int), np.ones(2, bool))
    opened.push(np.array([1, 2, 3]))
    for _ in range(4):
        opened.push(active=np.array([True, True, False]))
    with pytest.raises(UserError, match=r"rows is \[0\].*4 steps"):
        opened.push(active=np.array([True, False, True]))
    opened.push(active=np.array([False, False, True]))
