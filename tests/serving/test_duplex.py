"""A session without turns equals whole rows, whatever other rows do; it forgets nothing that it is to remember."""

import logging

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from slm_jax.core.errors import UserError
from slm_jax.core.types import EMPTY
from slm_jax.generation.advance import decoding
from slm_jax.generation.by_scheme import filled_in
from slm_jax.generation.sampling import SamplingConfig
from slm_jax.schemes.coarse_first import CoarseFirst
from slm_jax.schemes.delay import Delay
from slm_jax.schemes.parallel import Parallel
from slm_jax.serving.duplex import DuplexSession, Sides, begun, pushed, sides_of
from slm_jax.serving.spelling import Spelling
from slm_jax.text.tokenizers import ByteTokenizerConfig, CharacterTokenizerConfig
from tests.contracts.checks import random_params
from tests.serving.drawn import noise
from tests.serving.drawn_cascade import BOOKS, CODEC, CODES
from tests.serving.drawn_codes import BODY, DEEP, FLAT, drawn_code_lm
from tests.serving.test_long_streams import MIB, array_bytes, programs, resident_bytes

LETTERS = CharacterTokenizerConfig(characters=" abcdef").make()
STREAMS = (LETTERS.size + 2, *[CODES] * (2 * BOOKS))
SCHEMES = {
    "acoustic delay": Delay(delays=(0, 1, 1, 0, 1, 1)),
    "two frames": Delay(delays=(0, 2, 2, 0, 1, 2)),
    "none": Parallel(),
}
FRAMES = 7
LIKELIEST = SamplingConfig(temperatures=(0.0,) * len(STREAMS), max_new=1)
RANDOM = SamplingConfig(temperatures=(1.0,) * len(STREAMS), max_new=1)
KEYS = jax.random.split(jax.random.key(5), 3)


def model_of(window=None, deep=True):
    body = BODY.replace(window=window, max_positions=None)
    flat = FLAT.replace(streams=STREAMS, body=body)
    whole = DEEP.replace(temporal=flat.replace(heads=1), written=1 + BOOKS)
    lm = (whole if deep else flat).make()
    return lm, random_params(lm, jax.random.key(1), jnp.zeros((1, 2, len(STREAMS)), jnp.int32))


def opened(scheme, batch=3, keys=KEYS, sampling=LIKELIEST, window=64, deep=True):
    codec, (lm, params) = drawn_code_lm(Parallel()).codec, model_of(window, deep)
    spelling = Spelling(LETTERS, LETTERS.size)
    steps = decoding(lm, sampling)
    return DuplexSession(codec, steps, params, sides_of(scheme, BOOKS), spelling, batch, keys), codec, (lm, params)


def offline(scheme, codec, model, clips, keys, sampling):
    """Text ids, own codes and sound of whole rows in which the other side says these clips."""
    heard = codec.encode_rows(clips)
    told = []
    for codes in heard:
        own = np.full((len(codes) + 1, BOOKS), -1)
        other = np.pad(codes, ((0, 1), (0, 0)), constant_values=0)
        ids, valid = scheme.arrange_row(np.concatenate([own, other], axis=1))
        told.append(np.pad(np.where(valid, ids, EMPTY), ((0, 0), (1, 0)), constant_values=-1))
    rows = filled_in(*model, np.stack(told), keys, sampling)
    said = [scheme.restore_row(row[:, 1:])[: len(heard[0]), :BOOKS] for row in rows]
    return rows[:, :, 0], said, [codec.decode(codes) for codes in said]


def run(session, clips, frames=FRAMES):
    ids, sound, texts = [], [], []
    for t in range(frames):
        piece = np.stack([clip[t * session.hop : (t + 1) * session.hop] for clip in clips])
        spoken = session.push(piece, np.ones(len(clips), bool))
        ids.append(session.ids)
        sound.append(spoken.samples)
        texts.append(spoken.texts)
    return np.stack(ids, 1), np.concatenate(sound, 1), ["".join(row) for row in zip(*texts, strict=True)]


def clips_of(hop, frames=FRAMES):
    return [noise(1.0, seed=seed)[: frames * hop] for seed in range(3)]


@pytest.mark.parametrize("name", SCHEMES)
@pytest.mark.parametrize("sampling", [LIKELIEST, RANDOM], ids=["likeliest", "drawn"])
def test_a_session_says_what_whole_rows_say(name, sampling):
    scheme = SCHEMES[name]
    session, codec, model = opened(scheme, sampling=sampling)
    clips = clips_of(session.hop)
    text, said, sound = offline(scheme, codec, model, clips, KEYS, sampling)
    ids, samples, texts = run(session, clips)
    np.testing.assert_array_equal(ids[:, :, 0], text[:, 1 : 1 + FRAMES])
    for row in range(3):
        known = samples[row, session.late :]
        assert len(known) >= (FRAMES - 2) * session.hop - codec.config.late
        np.testing.assert_allclose(known, sound[row][: len(known)], atol=1e-5)
        written = [token for token in text[row, 1 : 1 + FRAMES].tolist() if token < LETTERS.size]
        assert texts[row] == LETTERS.decode(written)
    assert len({tuple(codes.ravel()) for codes in said}) == 3, "rows that all say the same show nothing"


def test_rows_rest_and_begin_anew_alone():
    scheme = SCHEMES["acoustic delay"]
    session, _, _ = opened(scheme, sampling=RANDOM)
    clips = clips_of(session.hop)
    ids, samples, _ = run(session, clips)
    session.reset(np.ones(3, bool))
    at, found, sound = np.zeros(3, int), [[] for _ in range(3)], [[] for _ in range(3)]
    going = np.random.default_rng(0).random((40, 3)) < 0.5
    for active in going:
        active = active & (at < FRAMES)
        now = zip(clips, np.minimum(at, FRAMES - 1), strict=True)
        piece = np.stack([clip[t * session.hop :][: session.hop] for clip, t in now])
        spoken = session.push(np.where(active[:, None], piece, np.nan), active)
        for row in np.flatnonzero(active):
            found[row].append(session.ids[row])
            sound[row].append(spoken.samples[row])
        assert (spoken.samples[~active] == 0).all() and all(spoken.texts[row] == "" for row in np.flatnonzero(~active))
        at += active
    assert (at == FRAMES).all()
    np.testing.assert_array_equal(np.array(found), ids)
    np.testing.assert_array_equal(np.array(sound).reshape(samples.shape), samples)


def test_it_goes_on_beyond_the_window_with_the_same_two_programs():
    session, _, _ = opened(SCHEMES["acoustic delay"], window=4)
    session.warm_up()
    compiled = pushed._cache_size(), begun._cache_size()
    clips = clips_of(session.hop, 20)
    first, *_ = run(session, clips, 20)
    session.reset(np.array([True, False, True]))
    again, *_ = run(session, clips, 20)
    assert (pushed._cache_size(), begun._cache_size()) == compiled
    np.testing.assert_array_equal(again[[0, 2]], first[[0, 2]])
    assert not np.array_equal(again[1], first[1]), "a row that goes on remembers"


def test_what_the_other_side_says_is_heard_one_frame_later_and_not_before():
    session, _, _ = opened(SCHEMES["acoustic delay"])
    clips = clips_of(session.hop)
    first, *_ = run(session, clips)
    session.reset(np.ones(3, bool))
    changed = [np.concatenate([clip[: 3 * session.hop], noise(1.0, seed=9)])[: len(clip)] for clip in clips]
    second, *_ = run(session, changed)
    np.testing.assert_array_equal(second[:, :3], first[:, :3])
    assert not np.array_equal(second[:, 3:], first[:, 3:])


def test_a_flat_model_goes_too():
    session, codec, model = opened(SCHEMES["acoustic delay"], deep=False)
    clips = clips_of(session.hop)
    text, *_ = offline(SCHEMES["acoustic delay"], codec, model, clips, KEYS, LIKELIEST)
    np.testing.assert_array_equal(run(session, clips)[0][:, :, 0], text[:, 1 : 1 + FRAMES])


def test_what_does_not_fit_is_refused_and_nothing_is_lost():
    session, *_ = opened(SCHEMES["none"])
    everyone, silence = np.ones(3, bool), np.zeros((3, session.hop), np.float32)
    with pytest.raises(UserError, match="must be finite"):
        session.push(np.full_like(silence, np.nan), everyone)
    with pytest.raises(UserError, match=f"{session.hop} samples for each of 3 rows"):
        session.push(silence[:, 1:], everyone)
    with pytest.raises(UserError, match="one flag for each"):
        session.reset(np.ones(2, bool))
    assert session.push(silence, everyone).samples.shape == silence.shape
    with pytest.raises(UserError, match="every book once a frame"):
        sides_of(CoarseFirst(coarse=1, chunk=4), BOOKS)
    lm, params = model_of(64)
    codec, spelling = drawn_code_lm(Parallel()).codec, Spelling(LETTERS, LETTERS.size)
    with pytest.raises(UserError, match="streams"):
        DuplexSession(codec, decoding(lm, LIKELIEST), params, Sides((0,), (0,)), spelling, 1, KEYS[:1])


def test_text_grows_by_whole_letters():
    tokenizer = ByteTokenizerConfig().make()
    text = "Größe, dřevěný stůl und ein Krokodil " * 3
    spelling = Spelling(tokenizer, tokenizer.size)
    pieces = [spelling.add(token) for token in tokenizer.encode(text)]
    assert "".join(pieces) == text and "ö" in pieces and "" in pieces
    assert spelling.add(tokenizer.size + 1) == "" and spelling.add(-1) == ""
    assert CODEC.startup == 1


@pytest.mark.slow(seconds=60)
def test_ten_minutes_of_four_rows_leave_memory_and_programs_as_they_were(caplog):
    """Frames of 20 ms, as many as ten minutes have of 80: rows rest at times, and one is reset in every minute."""
    keys, frames = jax.random.split(jax.random.key(8), 4), 7500
    session, _, _ = opened(SCHEMES["acoustic delay"], batch=4, keys=keys, sampling=RANDOM, window=16)
    rng, watched = np.random.default_rng(0), []
    sound = 0.1 * rng.standard_normal((4, 50 * session.hop)).astype(np.float32)
    with jax.log_compiles(True), caplog.at_level(logging.WARNING, logger="jax"):
        for t in range(frames):
            if t % 750 == 400:
                session.reset(np.arange(4) == t // 750 % 4)
            active = rng.random(4) < 0.9
            said, _ = session.push(sound[:, t % 50 * session.hop :][:, : session.hop], active)
            assert said.shape == (4, session.hop) and not said[~active].any()
            if t + 1 in (frames // 10, frames):
                watched.append((array_bytes(), resident_bytes(), programs(caplog)))
    (arrays, resident, made), (arrays_late, resident_late, made_late) = watched
    assert arrays_late == arrays > 0 and made_late == made > 0 and resident_late - resident < 16 * MIB
