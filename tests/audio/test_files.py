"""Reading, checking, writing and resampling audio files."""

import os
import re
import struct

import numpy as np
import pytest
import soundfile

from slm_jax.audio.files import (
    AudioError,
    audio_seconds,
    check_signal,
    read_audio,
    resample,
    to_float,
    to_int16,
    write_wav,
)
from slm_jax.audio.formats import READ, UNREAD
from slm_jax.core.errors import UserError

RATE = 16_000


def tone(seconds=0.5, rate_hz=RATE, hz=440.0, level=0.4):
    return (level * np.sin(2 * np.pi * hz * np.arange(round(seconds * rate_hz)) / rate_hz)).astype(np.float32)


def reason_of(path, **options):
    with pytest.raises(AudioError) as caught:
        read_audio(path, **options)
    assert caught.value.reason in str(caught.value)
    assert "\n" not in str(caught.value)
    return caught.value.reason


@pytest.mark.parametrize(
    "name, subtype, closeness",
    [
        ("a.wav", "PCM_U8", 0.01),
        ("a.wav", "PCM_16", 1e-4),
        ("a.wav", "PCM_24", 1e-6),
        ("a.wav", "PCM_32", 1e-6),
        ("a.wav", "FLOAT", 1e-7),
        ("a.wav", "DOUBLE", 1e-7),
        ("a.flac", "PCM_16", 1e-4),
        ("a.ogg", "VORBIS", 0.05),
        ("a.opus", "OPUS", 0.05),
        ("a.mp3", "MPEG_LAYER_III", 0.05),
    ],
)
def test_reads_every_format(tmp_path, name, subtype, closeness):
    path, samples = tmp_path / name, tone(1.0)
    soundfile.write(path, samples, RATE, subtype=subtype, format="OGG" if name.endswith("opus") else None)
    read = read_audio(path)
    assert read.dtype == np.float32
    assert abs(len(read) - len(samples)) <= 2304  # mp3 comes in blocks of 1152
    middle = slice(4000, 12000)
    lag = np.argmax(np.correlate(read[3000:13000], samples[middle], "valid")) - 1000
    np.testing.assert_allclose(read[4000 + lag : 12000 + lag], samples[middle], atol=closeness)


@pytest.mark.parametrize("name, form", [("a.aiff", "AIFF"), ("a.au", "AU"), ("a.caf", "CAF"), ("a.w64", "W64"),
                                        ("a.rf64", "RF64"), ("a.sph", "NIST"), ("a.voc", "VOC")])  # fmt: skip
def test_reads_what_the_library_reads(tmp_path, name, form):
    path, samples = tmp_path / name, tone(0.5)
    soundfile.write(path, samples, RATE, format=form, subtype="PCM_16")
    np.testing.assert_allclose(read_audio(path), samples, atol=1e-4)
    assert path.suffix in READ and path.suffix not in UNREAD


def test_the_length_is_told_by_the_header_and_so_is_what_is_no_audio(tmp_path):
    assert audio_seconds(write_wav(tmp_path / "a.wav", tone(0.3, 8_000), 8_000)) == pytest.approx(0.3)
    soundfile.write(tmp_path / "none.wav", np.zeros(0), RATE)
    (tmp_path / "text.flac").write_text("no audio")
    for name, reason in {"none.wav": "too_short", "text.flac": "unreadable", "gone.wav": "missing"}.items():
        with pytest.raises(AudioError, match=name) as caught:
            audio_seconds(tmp_path / name)
        assert caught.value.reason == reason


def test_channels_are_kept_where_there_are_as_many(tmp_path):
    path, samples = tmp_path / "two.wav", np.stack([tone(1.0, 48_000), tone(1.0, 48_000, 300.0, 0.2)], axis=1)
    soundfile.write(path, samples, 48_000, subtype="FLOAT")
    np.testing.assert_array_equal(read_audio(path, rate_hz=48_000, channels=2), samples)
    wanted = np.stack([tone(1.0), tone(1.0, hz=300.0, level=0.2)], axis=1)
    np.testing.assert_allclose(read_audio(path, channels=2)[800:-800], wanted[800:-800], atol=2e-3)
    assert reason_of(path, channels=3) == "wrong_channels"
    check_signal(np.stack([tone(), np.zeros(8000, np.float32)], axis=1), RATE)  # one side may be silent, both not
    with pytest.raises(AudioError, match="silent"):
        check_signal(np.full((8000, 2), [0.1, 0.3], np.float32), RATE)


@pytest.mark.parametrize("peak", [5.0, -32768.0, 1e20, 3e38])
def test_samples_of_another_scale(tmp_path, peak):
    path, samples = tmp_path / "a.wav", tone()
    samples[100] = peak
    soundfile.write(path, samples, RATE, subtype="FLOAT")
    assert reason_of(path) == "too_loud"
    with pytest.raises(AudioError, match=re.escape(f"peak {abs(peak):g}")):
        check_signal(samples, RATE)


def test_a_little_over_full_scale_is_fine(tmp_path):
    path, samples = tmp_path / "a.wav", tone(level=1.3)
    soundfile.write(path, samples, RATE, subtype="FLOAT")
    np.testing.assert_array_equal(read_audio(path), samples)


def test_mixes_channels_and_resamples(tmp_path):
    path = tmp_path / "six.wav"
    channels = np.stack([tone(1.0, 48_000, level=level) for level in (0.1, 0.2, 0.3, 0.1, 0.2, 0.3)], axis=1)
    soundfile.write(path, channels, 48_000, subtype="FLOAT")
    read = read_audio(path)
    assert len(read) == RATE
    np.testing.assert_allclose(read[800:-800], tone(1.0, level=0.2)[800:-800], atol=2e-3)


def test_blocks_join_without_seams(tmp_path, monkeypatch):
    path = tmp_path / "long.wav"
    signal = np.random.default_rng(0).normal(size=44_100).astype(np.float32) * 0.1
    soundfile.write(path, signal, 44_100, subtype="FLOAT")
    monkeypatch.setattr("slm_jax.audio.files.BLOCK_FRAMES", 1000)
    np.testing.assert_allclose(read_audio(path), resample(signal, 44_100, RATE), atol=2e-3)
    np.testing.assert_array_equal(read_audio(path, rate_hz=44_100), signal)


def test_reads_the_part_asked_for(tmp_path):
    path, samples = write_wav(tmp_path / "a.wav", tone(1.0), RATE), to_float(to_int16(tone(1.0)))
    np.testing.assert_allclose(read_audio(path, offset_s=0.25, duration_s=0.5), samples[4000:12000], atol=1e-4)
    assert len(read_audio(path, offset_s=0.75)) == 4000
    assert len(read_audio(path, offset_s=0.75, duration_s=0.3)) == 4000  # a duration rounded up a little


@pytest.mark.parametrize("offset_s", [-0.1, 1.0, 1e12, float("nan"), float("inf")])
def test_refuses_offsets(tmp_path, offset_s):
    assert reason_of(write_wav(tmp_path / "a.wav", tone(1.0), RATE), offset_s=offset_s) == "bad_offset"


@pytest.mark.parametrize("duration_s", [0.0, -1.0, 2.0, float("nan")])
def test_refuses_durations(tmp_path, duration_s):
    assert reason_of(write_wav(tmp_path / "a.wav", tone(1.0), RATE), duration_s=duration_s) == "bad_duration"


def test_reasons_of_paths(tmp_path):
    folder, empty, link = tmp_path / "folder.wav", tmp_path / "empty.wav", tmp_path / "link.wav"
    folder.mkdir()
    empty.touch()
    link.symlink_to(tmp_path / "nowhere.wav")
    assert reason_of(tmp_path / "absent.wav") == "missing"
    assert reason_of(link) == "missing"
    assert reason_of(folder) == "not_a_file"
    assert reason_of(empty) == "empty_file"
    assert reason_of("a\0b.wav") == "missing"


def test_no_permission(tmp_path, monkeypatch):
    path = write_wav(tmp_path / "a.wav", tone(), RATE)
    path.chmod(0)
    if os.access(path, os.R_OK):  # the superuser reads everything: ask as somebody else would be answered
        monkeypatch.setattr(os, "access", lambda *_: False)
    assert reason_of(path) == "no_permission"


def test_reasons_of_damage(tmp_path):
    whole = write_wav(tmp_path / "whole.wav", tone(1.0), RATE).read_bytes()
    cut, header, text = tmp_path / "cut.wav", tmp_path / "header.wav", tmp_path / "text.wav"
    cut.write_bytes(whole[:-5000])
    header.write_bytes(whole[:30])
    text.write_text("this is no audio\n" * 100)
    assert reason_of(cut) == "truncated"
    assert reason_of(header) == "unreadable"
    assert reason_of(text) == "unreadable"


def test_truncated_flac(tmp_path):
    path = tmp_path / "a.flac"
    soundfile.write(path, np.random.default_rng(0).normal(size=RATE).astype(np.float32) * 0.1, RATE)
    path.write_bytes(path.read_bytes()[:-6000])
    assert reason_of(path) in ("truncated", "unreadable")


def test_wrong_extension_is_read_by_content(tmp_path):
    path = tmp_path / "really_flac.wav"
    soundfile.write(path, tone(1.0), RATE, format="FLAC")
    assert len(read_audio(path)) == RATE


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_not_finite(tmp_path, bad):
    path, samples = tmp_path / "a.wav", tone()
    samples[100] = bad
    soundfile.write(path, samples, RATE, subtype="FLOAT")
    assert reason_of(path) == "not_finite"


@pytest.mark.parametrize("level", [0.0, 0.5, 5e-5])
def test_silence_and_direct_current(tmp_path, level):
    path = tmp_path / "a.wav"
    soundfile.write(path, np.full(8000, level, np.float32), RATE, subtype="FLOAT")
    assert reason_of(path) == "silent"


@pytest.mark.parametrize("rate_hz", [1, 3_999, 384_000])
def test_rates_out_of_reach(tmp_path, rate_hz):
    path = tmp_path / "a.wav"
    soundfile.write(path, tone(), rate_hz)
    assert reason_of(path) == "bad_rate"


def test_lengths(tmp_path):
    short = write_wav(tmp_path / "short.wav", tone(0.01), RATE)
    header_only = tmp_path / "none.wav"
    soundfile.write(header_only, np.zeros(0, np.float32), RATE)
    assert reason_of(short, min_s=0.1) == "too_short"
    assert reason_of(short, max_s=0.005) == "too_long"
    assert reason_of(header_only) == "too_short"
    assert len(read_audio(short)) == 160


@pytest.mark.parametrize("name", ["čeština 語 🙂.wav", "two\nlines.wav", b"latin\xe9.wav"])
def test_odd_names(tmp_path, name):
    path = tmp_path / os.fsdecode(name)
    write_wav(path, tone(), RATE)
    assert len(read_audio(path)) == 8000
    path.write_bytes(b"")
    assert reason_of(path) == "empty_file"


def test_check_signal_accepts_speech_level():
    check_signal(tone(1.0), RATE, 0.5, 2.0)
    with pytest.raises(UserError, match="too_short"):
        check_signal(tone(0.1), RATE, 0.5, 2.0)


def test_write_clips_and_leaves_no_traces(tmp_path):
    path = write_wav(tmp_path / "new" / "a.wav", np.array([0.0, 2.0, -2.0, 0.5]), RATE)
    assert soundfile.info(path).subtype == "PCM_16"
    np.testing.assert_allclose(soundfile.read(path)[0], [0.0, 1.0, -1.0, 0.5], atol=1e-4)
    before = path.read_bytes()
    with pytest.raises(AudioError, match="not_finite"):
        write_wav(path, np.array([0.0, np.nan]), RATE)
    assert path.read_bytes() == before
    assert [p.name for p in path.parent.iterdir()] == ["a.wav"]


def test_int16_round_trip():
    values = np.array([-32767, -1, 0, 1, 32767], np.int16)
    np.testing.assert_array_equal(to_int16(values / 32767.0), values)
    assert to_float(values).max() < 1.0


def test_streamed_header_is_not_called_truncated(tmp_path):
    path = write_wav(tmp_path / "a.wav", tone(), RATE)
    data = bytearray(path.read_bytes())
    place = data.index(b"data") + 4
    data[place : place + 4] = struct.pack("<I", 0xFFFFFFFF)
    path.write_bytes(data)
    assert len(read_audio(path)) == 8000
