import numpy as np
import pytest

from slm_jax.core.errors import UserError
from slm_jax.data.examples.vocoder_segments import VocoderSegmentConfig, f0_at, tokens_at

CONFIG = VocoderSegmentConfig(frames=32, speakers=("ann", "bob"))


def utterance(frames: int, extra: int = 80) -> dict:
    """Units and samples that name their own place; F0 is 100 Hz plus 10 Hz per second, unvoiced from 1 s to 1.5 s."""
    seconds = (np.arange(int(frames * 0.02 / 0.0125) + 2) + 0.5) * 0.0125
    f0_hz = np.where((seconds >= 1.0) & (seconds < 1.5), 0, 100 + 10 * seconds).astype(np.float32)
    samples = (np.arange(frames * 320 + extra) % 2**15).astype(np.int16)
    return {"units": np.arange(frames) + 1, "samples": samples, "f0_hz": f0_hz, "speaker": "bob"}


def test_segments_are_aligned():
    starts = set()
    for seed in range(60):
        example = CONFIG.make()(utterance(150), np.random.default_rng(seed))
        assert {name: (np.shape(value), value.dtype.name) for name, value in example.items()} == {
            "units": ((32,), "int32"),
            "f0_hz": ((32,), "float32"),
            "voiced": ((32,), "bool"),
            "frame_mask": ((32,), "bool"),
            "samples": ((32 * 320,), "float32"),
            "speaker": ((), "int32"),
        }
        start = int(example["units"][0]) - 1
        np.testing.assert_array_equal(example["units"], np.arange(32) + start + 1)
        positions = np.arange(32 * 320) + start * 320
        np.testing.assert_array_equal(example["samples"], (positions % 2**15).astype(np.float32) / 32768)
        middle_s = (np.arange(32) + start + 0.5) * 0.02
        clear = (abs(middle_s - 1.0) > 0.0126) & (abs(middle_s - 1.5) > 0.0126)
        voiced = (middle_s < 1.0) | (middle_s >= 1.5)
        np.testing.assert_array_equal(example["voiced"][clear], voiced[clear])
        sure = clear & voiced
        np.testing.assert_allclose(example["f0_hz"][sure], 100 + 10 * middle_s[sure], atol=1e-3)
        np.testing.assert_array_equal(example["f0_hz"] > 0, example["voiced"])
        assert example["frame_mask"].all()
        assert example["speaker"] == 1
        starts.add(start)
    assert len(starts) > 20
    assert max(starts) <= 150 - 32


def test_short_utterances_are_padded():
    example = CONFIG.make()(utterance(10), np.random.default_rng(0))
    np.testing.assert_array_equal(example["frame_mask"], np.arange(32) < 10)
    assert not any(example[name][10:].any() for name in ("units", "f0_hz", "voiced"))
    assert not example["samples"][3200:].any()
    assert example["samples"][:3200].any()


def test_the_shorter_of_units_and_samples_counts():
    item = utterance(40)
    cut = CONFIG.make()(item | {"samples": item["samples"][: 12 * 320 + 5]}, np.random.default_rng(0))
    assert cut["frame_mask"].sum() == 12


def test_speakers():
    assert CONFIG.replace(speakers=()).speaker_id("anyone") == 0
    with pytest.raises(UserError, match=r"'bop'.*did you mean 'bob'"):
        CONFIG.make()(utterance(40) | {"speaker": "bop"}, np.random.default_rng(0))


def test_f0_is_never_mixed_with_silence():
    f0_hz = np.asarray([0, 100, 200, 0], np.float32)
    value, voiced = f0_at(f0_hz, np.asarray([0.0, 0.4, 0.6, 1.0, 1.25, 1.75, 2.4, 2.6, 3.0, 9.0]))
    np.testing.assert_allclose(value, [0, 0, 100, 100, 125, 175, 200, 0, 0, 0])
    np.testing.assert_array_equal(voiced, value > 0)


def test_f0_beyond_the_track_is_unvoiced():
    value, voiced = f0_at(np.asarray([100.0], np.float32), np.asarray([0.0, 0.4, 0.6, 5.0]))
    np.testing.assert_array_equal(value, [100, 100, 0, 0])
    assert not f0_at(np.zeros(0, np.float32), np.asarray([0.0, 1.0]))[1].any()


@pytest.mark.parametrize("field, value", [("frames", 0), ("hop_samples", 0), ("rate_hz", 0), ("f0_step_s", 0.0)])
def test_config_checks_its_fields(field, value):
    with pytest.raises(UserError, match=field):
        CONFIG.replace(**{field: value})


def test_the_last_token_of_a_stream_goes_on_to_the_end_and_none_is_0():
    assert tokens_at(np.asarray([3, 5]), 2, 1, 7).tolist() == [3, 5, 5, 5, 5, 5]
    assert tokens_at(np.zeros(0, int), 2, 0, 2).tolist() == [0, 0]
