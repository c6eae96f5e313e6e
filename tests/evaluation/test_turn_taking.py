"""Spans of voice and what lies beside them, on sounds whose spans are known."""

import numpy as np
import pytest

from slm_jax.core.errors import UserError
from slm_jax.evaluation.turn_taking import (
    backchannels,
    first_voice,
    joined,
    takes_over,
    voice_within,
    voiced_spans,
)

RATE = 16_000


def sound(spans, seconds, loud=0.1, floor=1e-4):
    time = np.arange(round(seconds * RATE)) / RATE
    voice = sum(((time >= start) & (time < end)) * loud * np.sin(2 * np.pi * 150 * time) for start, end in spans)
    return (voice + floor * np.random.default_rng(0).standard_normal(len(time))).astype(np.float32)


def test_spans_are_where_there_is_sound():
    spans = [(0.5, 1.2), (2.0, 3.5)]
    for loud in (0.02, 0.5):
        np.testing.assert_allclose(voiced_spans(sound(spans, 4.0, loud), RATE), spans, atol=0.021)
    np.testing.assert_allclose(voiced_spans(sound([(0.5, 1.0), (1.1, 2.0)], 3.0), RATE), [(0.5, 2.0)], atol=0.021)
    assert voiced_spans(sound([(0.5, 0.55)], 2.0), RATE) == []
    assert voiced_spans(np.zeros(RATE, np.float32), RATE) == [] and voiced_spans(np.zeros(0, np.float32), RATE) == []
    assert voiced_spans(sound([(0.5, 1.0)], 2.0, loud=0.001), RATE) == [], "below what is heard at all"


def test_a_takeover_lasts_a_second_and_begins_in_time():
    spans = [(0.2, 0.6), (3.1, 4.5)]
    assert takes_over(spans, 2.5, 3.5) and not takes_over(spans, 0.0, 1.0) and not takes_over(spans, 3.2, 4.5)
    assert first_voice(spans, 2.5) == pytest.approx(0.6) and first_voice(spans, 3.5) == 0.0
    assert first_voice(spans, 5.0) is None
    assert voice_within(spans, 0.5, 3.6) == pytest.approx(0.6)
    assert backchannels(spans, [(0.0, 2.0)]) == 1 and backchannels(spans, [(1.0, 4.0)]) == 0
    assert joined([(0.0, 1.0), (1.2, 2.0), (2.5, 3.0)]) == [(0.0, 2.0), (2.5, 3.0)]
    with pytest.raises(UserError, match="at most the end"):
        voice_within(spans, 2.0, 1.0)
