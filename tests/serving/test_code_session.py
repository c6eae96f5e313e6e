"""Frames of a session under every scheme are those offline, whenever rows start, rest and are reset."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from slm_jax.core.errors import UserError
from slm_jax.core.types import Codes
from slm_jax.generation.advance import decoding
from slm_jax.generation.by_scheme import continue_codes
from slm_jax.generation.sampling import SamplingConfig
from slm_jax.schemes.parallel import Parallel
from slm_jax.serving.code_session import CodeSession
from tests.serving.drawn_cascade import BOOKS, CODES
from tests.serving.drawn_codes import drawn_code_lm
from tests.serving.test_code_speech_lm import SCHEMES

FRAMES, KNOWN = 8, (3, 0)
PROMPTS = np.random.default_rng(0).integers(0, CODES, (2, FRAMES, BOOKS)).astype(np.int32)
KEYS = jax.random.split(jax.random.key(1), 2)
DRAWS = SamplingConfig(max_new=1, temperature=1.0, top_k=9)


def offline(system):
    mask = jnp.asarray(np.arange(FRAMES) < np.array(KNOWN)[:, None])
    told = Codes(jnp.asarray(PROMPTS), mask)
    made = continue_codes(system.lm, system.lm_params, told, FRAMES, system.scheme, KEYS, DRAWS)
    return np.asarray(made.ids)


def opened(system):
    variables = {"params": system.lm_params}
    return CodeSession(decoding(system.lm, DRAWS), variables, system.scheme, FRAMES, 2, KEYS)


def frame(at):
    """What each row is given of its next frame."""
    given = [PROMPTS[row, at[row]] if at[row] < KNOWN[row] else np.full(BOOKS, -1) for row in range(2)]
    return np.stack(given)


@pytest.mark.parametrize("name", SCHEMES)
def test_frames_are_those_offline_and_come_when_the_table_says(name):
    system = drawn_code_lm(SCHEMES[name])
    wanted, session = offline(system), opened(system)
    at, heard = np.zeros(2, int), [[], []]
    for turn in range(3 * FRAMES):
        if turn == 2:  # the first row begins again
            session.reset(np.array([True, False]))
            at[0], heard[0] = 0, []
        active = np.array([turn != 4, turn >= 3]) & (at < FRAMES)
        out = session.push(frame(np.minimum(at, FRAMES - 1)), active)
        at += active
        for row in range(2):
            heard[row] += out[row].tolist()
            assert at[row] - len(heard[row]) <= system.scheme.latency(FRAMES, BOOKS)
            assert not len(out[row]) or active[row]
    np.testing.assert_array_equal(np.array(heard), wanted)


def test_what_does_not_fit_is_refused_and_the_session_goes_on():
    session = opened(drawn_code_lm(Parallel()))
    with pytest.raises(UserError, match="codes is"):
        session.push(np.zeros((2, BOOKS + 1), int))
    with pytest.raises(UserError, match="within the books"):
        session.push(np.full((2, BOOKS), CODES))
    with pytest.raises(UserError, match="active is"):
        session.push(None, np.ones(3, bool))
    for _ in range(FRAMES):  # what was refused has not begun
        assert [len(frames) for frames in session.push()] == [1, 1]
    with pytest.raises(UserError, match="had their 8 frames"):
        session.push()
