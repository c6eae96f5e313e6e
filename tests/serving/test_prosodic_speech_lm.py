"""Speech gone on with by units, durations and pitch: what is drawn is legal, said as drawn, and alone as in a batch."""

import jax
import numpy as np
import pytest

from slm_jax.core.errors import UserError
from slm_jax.core.messages import spoken
from slm_jax.generation.sampling import SamplingConfig
from slm_jax.serving.unit_speech_lm import UnitDecoding
from tests.golden.sounds import sound
from tests.serving.drawn_prosodic import CLASSES, UNITS, drawn_prosodic_speech_lm

CLIPS = [sound(3)[:16_000].astype(np.float32), sound(4)[:24_000].astype(np.float32)]
DRAWN = SamplingConfig(temperatures=(1.0, 1.0, 1.0), max_new=12)


@pytest.fixture(scope="module", params=[False, True], ids=["classes", "reals"])
def system(request):
    return drawn_prosodic_speech_lm(reals=request.param)


@pytest.fixture(scope="module")
def heard(system):
    return system.encode(CLIPS)


def test_what_is_heard_is_frames_and_pitch(system, heard):
    for clip, one in zip(CLIPS, heard, strict=True):
        frames = system.frames(one.entries)
        longest = system.tokenizer.frame_count(len(clip))
        assert len(one.entries) > 3
        assert 0 < frames.sum() <= longest
        assert 60 < np.exp(one.voice.mean) < 500
        assert (one.entries[:, 0] < UNITS).all()


def test_continuations_hold_what_may_be_drawn(system, heard):
    for new in system.continuations([one.entries for one in heard] * 3, jax.random.key(0), DRAWN):
        assert len(new) <= 12
        assert ((new[:, 0] >= 0) & (new[:, 0] < UNITS)).all()
        assert (new[:, 1] > 0).all()
        if system.lm.config.grid(2) is None:
            assert ((new[:, 2] >= 0) & (new[:, 2] < CLASSES)).all()
            assert (new[:, 1] <= 6).all()


def test_alone_as_in_a_batch(system, heard):
    keys = jax.random.split(jax.random.key(5), 2)
    both = system.continuations([one.entries for one in heard], keys, DRAWN)
    for row, one in enumerate(heard):
        (alone,) = system.continuations([one.entries], keys[row : row + 1], DRAWN)
        np.testing.assert_array_equal(alone, both[row])


def test_log_probabilities_are_of_every_entry_and_of_the_end(system, heard):
    found = system.log_prob([spoken(clip, 16_000) for clip in CLIPS])
    for one, scores in zip(heard, found, strict=True):
        assert scores.shape == (len(one.entries) + 1, 3)
        assert (scores[:, 0] < 0).all()
        assert scores[0, 1] == 0, "nothing of duration stands beside the first unit"


def test_a_reply_lasts_as_long_as_its_frames(system):
    how = UnitDecoding(temperatures=(1.0, 1.0, 1.0), max_new=6, min_new=4, with_prompt=False)
    replies = system.respond([spoken(clip, 16_000) for clip in CLIPS], how, jax.random.key(2))
    for reply in replies:
        (message,) = reply.messages
        new = reply.trace["new"]
        assert len(new["units"]) > 0
        assert len(message.speech[0].samples) == new["frames"].sum() * system.vocoder.config.hop


def test_the_coldest_draws_the_likeliest(system, heard):
    prompts = [one.entries for one in heard]
    cold = system.continuations(prompts, jax.random.key(0), DRAWN.replace(temperatures=(0.0, 0.0, 0.0)))
    again = system.continuations(prompts, jax.random.key(1), SamplingConfig(temperature=0.0, max_new=12))
    for one, other in zip(cold, again, strict=True):
        np.testing.assert_array_equal(one, other)


def test_temperatures_that_do_not_fit_are_refused(system, heard):
    with pytest.raises(UserError, match=r"temperatures is \(1.0,\): one for each of the 3 streams"):
        system.continuations([heard[0].entries], jax.random.key(0), SamplingConfig(temperatures=(1.0,), max_new=4))
    with pytest.raises(UserError, match=r"temperature is 0.5: stays 1 where each stream has its own"):
        SamplingConfig(temperature=0.5, temperatures=(1.0, 1.0))
