"""Text and codes as a system: what is heard stays, batched as alone, texts are spoken, turns taken."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from slm_jax.core.errors import UserError
from slm_jax.core.messages import Text, spoken
from slm_jax.core.types import EMPTY
from slm_jax.generation.advance import decoding
from slm_jax.generation.sampling import SamplingConfig
from slm_jax.layouts.beside import PaddingAfter, TimeAligned
from slm_jax.layouts.interleaved import ByRatio, WordSpans
from slm_jax.layouts.layout import parted
from slm_jax.layouts.said import said_of
from slm_jax.schemes.coarse_first import CoarseFirst
from slm_jax.schemes.delay import Delay
from slm_jax.schemes.flattened import Flattened
from slm_jax.schemes.parallel import Parallel, TemporalDepth
from slm_jax.serving.code_speech_lm import codes_of
from slm_jax.serving.text_code_speech_lm import TextCodeDecoding
from slm_jax.serving.turns import in_turns
from tests.serving.drawn import noise
from tests.serving.drawn_cascade import BOOKS, CODES
from tests.serving.drawn_codes import drawn_text_code_lm

PAIRS = {
    "delay, behind": (Delay(delays=(0, 1, 2)), TimeAligned(ahead=-3)),
    "temporal and depth, ahead": (TemporalDepth(), TimeAligned(ahead=2)),
    "interleaved, padding after": (Flattened(), PaddingAfter()),
    "delay, in turns": (Delay(delays=(0, 1, 2)), ByRatio(text=2, frames=3)),
    "temporal and depth, in turns": (TemporalDepth(), ByRatio(text=2, frames=3)),
    "coarse first, in turns": (CoarseFirst(coarse=1, chunk=4), WordSpans()),
}
QUICK = ("delay, behind", "temporal and depth, in turns")
CLIPS = [noise(0.3, seed=1), noise(0.2, seed=2), noise(0.3, seed=3)]
KEYS = jax.random.split(jax.random.key(3), 3)
SAID = [said_of([np.array([1, 2]), np.array([3])], np.array([[1, 2], [5, 6]])), said_of([], np.zeros((0, 2), int))]


@pytest.mark.parametrize(
    "name", [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow(seconds=15)) for name in PAIRS]
)
def test_it_writes_beside_what_it_hears_and_goes_on_and_a_clip_gets_what_it_gets_alone(name):
    system = drawn_text_code_lm(*PAIRS[name])
    asked = [spoken(clip, system.rate_hz) for clip in CLIPS]
    replies = system.respond(asked, None, KEYS)
    for reply, codes in zip(replies, codes_of(system.codec, asked, system.reads), strict=True):
        made, known = reply.trace["codes"], reply.trace["prompt_frames"]
        assert known == len(codes) and made.shape == (known + 10, BOOKS) and made.min() >= 0 and made.max() < CODES
        np.testing.assert_array_equal(made[:known], codes)
        text, speech = reply.messages[0].parts
        assert isinstance(text, Text) and len(speech.samples) == len(made) * system.codec.config.hop
    assert len({reply.messages[0].text for reply in replies}) > 1
    for place in (1, 2):
        (alone,) = system.respond(asked[place : place + 1], None, KEYS[place : place + 1])
        np.testing.assert_array_equal(alone.trace["codes"], replies[place].trace["codes"])
        assert alone.messages[0].text == replies[place].messages[0].text


def test_without_new_seconds_it_only_writes():
    system = drawn_text_code_lm(*PAIRS["delay, behind"])
    (reply,) = system.respond([spoken(CLIPS[0], system.rate_hz)], TextCodeDecoding(seconds=0.0), KEYS[:1])
    assert [type(part) for part in reply.messages[0].parts] == [Text]
    assert len(reply.trace["codes"]) == reply.trace["prompt_frames"]


def test_whoever_takes_turns_writes_alone_and_owes_no_frame():
    """The likeliest under weights that favour text, then speech: steps hold text or a frame's codes, never both."""
    system = drawn_text_code_lm(Delay(delays=(0, 1, 2)), ByRatio(text=2, frames=3))
    codes = np.random.default_rng(0).integers(CODES, size=(2, 3, BOOKS))
    size = system.rows.tokenizer.size
    sampling = TextCodeDecoding(text_temperature=1.5).sampling(BOOKS).replace(alone=size)
    rows = in_turns(decoding(system.lm, sampling), system.lm_params, codes, system.rows.scheme, 9, 6, KEYS[:2])
    for row, heard in zip(rows, codes, strict=True):
        text, steps = parted(row, size)
        assert 0 < len(text) <= 6 and len(row) == 9 + 2 + len(text)
        assert (row[:3, 0] >= size).all(), "what is heard comes first"
        alone = (row[:, 0] >= 0) & (row[:, 0] < size)
        assert (row[alone, 1:] == EMPTY).all() and (row[-2:, 0] == EMPTY).all()
        restored = system.rows.scheme.restore_row(steps)
        np.testing.assert_array_equal(restored[:3], heard)
        assert restored.shape == (9, BOOKS) and (restored >= 0).all()


@pytest.mark.parametrize("scheme", [Delay(delays=(0, 1, 2)), TemporalDepth()], ids=["delay", "temporal and depth"])
def test_in_turns_the_likeliest_is_written_at_every_step(scheme):
    system = drawn_text_code_lm(scheme, ByRatio())
    codes = np.random.default_rng(2).integers(CODES, size=(2, 3, BOOKS))
    size, most = system.rows.tokenizer.size, 5
    greedy = TextCodeDecoding(temperature=0.0, text_temperature=0.0).sampling(BOOKS).replace(alone=size)
    rows = in_turns(decoding(system.lm, greedy), system.lm_params, codes, scheme, 9, most, KEYS[:2])
    for row in rows:
        read = np.pad(row, ((1, 0), (0, 0)), constant_values=EMPTY)[None]
        logits = system.lm.apply({"params": system.lm_params}, jnp.asarray(read))
        wanted = np.asarray(logits.argmax(-1))[0, :-1]
        text = (row[:, 0] >= 0) & (row[:, 0] < size)
        asked = np.arange(len(row)) >= 3
        free = asked & (np.cumsum(text) - text < most) & (row[:, 0] != EMPTY)
        np.testing.assert_array_equal(row[free, 0], wanted[free, 0])
        last = np.arange(len(row)) >= len(row) - (len(row) - 3) // 2  # where no book of the clip is owed any more
        drawn = last[:, None] & (row[:, 1:] != EMPTY)
        np.testing.assert_array_equal(row[:, 1:][drawn], wanted[:, 1:][drawn])
        assert free.any() and drawn.any()


@pytest.mark.parametrize("layout", [TimeAligned(), ByRatio(text=2, frames=3)])
def test_a_text_is_spoken_as_long_as_it_is_asked_for_and_alike_alone(layout):
    system = drawn_text_code_lm(Delay(delays=(0, 1, 2)), layout)
    made = system.spoken(SAID, [8, 6], system.decoding, KEYS[:2])
    assert [one.shape for one in made] == [(8, BOOKS), (6, BOOKS)]
    (alone,) = system.spoken(SAID[:1], [8], system.decoding, KEYS[:1])
    np.testing.assert_array_equal(alone, made[0])


def test_what_cannot_be_done_is_refused():
    system = drawn_text_code_lm(Delay(delays=(0, 1, 2)), ByRatio())
    steps = decoding(system.lm, SamplingConfig())
    with pytest.raises(UserError, match="alone is 0: ids of the text"):
        in_turns(steps, system.lm_params, np.zeros((1, 2, 3), int), Parallel(), 4, 8, KEYS[0])
    with pytest.raises(UserError, match=r"seconds is -1\.0"):
        TextCodeDecoding(seconds=-1.0)
    assert system.respond([], None, jax.random.key(0)) == []
