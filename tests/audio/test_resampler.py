"""A stream at another rate: pieces of any length are the whole."""

import numpy as np
import pytest

from slm_jax.audio.files import resample
from slm_jax.audio.resampler import Resampler

NOISE = np.random.default_rng(0).uniform(-1, 1, 24_000).astype(np.float32)


@pytest.mark.parametrize(("low", "high"), [(24_000, 16_000), (16_000, 24_000), (24_000, 44_100), (24_000, 24_000)])
def test_pieces_are_the_whole_and_the_next_stream_begins_anew(low, high):
    stream, rng = Resampler(low, high), np.random.default_rng(1)
    whole = resample(NOISE, low, high)
    for _ in range(2):
        cuts = np.cumsum(rng.integers(0, 1500, 20))
        pieces = [stream.piece(part) for part in np.split(NOISE, cuts[cuts < len(NOISE)])]
        found = np.concatenate([*pieces, stream.finish()])
        assert abs(len(found) - len(whole)) <= 1
        count = min(len(found), len(whole))
        np.testing.assert_allclose(found[:count], whole[:count], atol=1e-6)
    assert len(stream.finish()) == 0


def test_less_than_forty_milliseconds_are_held_back():
    stream = Resampler(24_000, 16_000)
    heard = [len(stream.piece(part)) for part in np.split(NOISE, 50)]
    late_s = (np.arange(1, 51) * 480 / 24_000) - np.cumsum(heard) / 16_000
    assert late_s[5:].min() >= 0 and late_s.max() < 0.04
