"""Audio files: checked reading as float32 at one rate, mono or by channel; atomic writing, resampling."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import soxr

from slm_jax.audio.riff import missing_bytes
from slm_jax.core.errors import UserError

LOWEST_RATE_HZ = 4_000
HIGHEST_RATE_HZ = 192_000
SILENT_PEAK = 1e-4
LOUDEST_PEAK = 4.0
"""Full scale is 1, and decoders and float files go a little beyond it; four times as much is no sound in [-1, 1]."""
DURATION_TOLERANCE_S = 0.1
BLOCK_FRAMES = 1 << 18

REASONS = {
    "missing": "no such file, or a link to nothing",
    "not_a_file": "a folder or a device",
    "no_permission": "not readable by this user",
    "empty_file": "0 bytes",
    "unreadable": "not an audio file of a known format",
    "truncated": "the header promises more samples than there are",
    "not_finite": "holds NaN or infinite samples",
    "too_loud": f"peak above {LOUDEST_PEAK:g}, where full scale is 1: samples of another scale, or damaged",
    "wrong_channels": "another number of channels than the corpus keeps",
    "silent": f"peak below {SILENT_PEAK} once the mean is removed",
    "bad_rate": f"sampling rate outside {LOWEST_RATE_HZ} to {HIGHEST_RATE_HZ} Hz",
    "too_short": "shorter than the shortest accepted length",
    "too_long": "longer than the longest accepted length",
    "bad_offset": "offset negative, not a number or past the end",
    "bad_duration": "duration not positive, or more than the file holds after the offset",
}
"""Reason codes of `AudioError` with their meaning, for tables and reports."""


class AudioError(UserError):
    """An audio file or signal that cannot be used; `reason` is one of `REASONS`."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(f"{message}: {REASONS[reason]} ({reason})")
        self.reason = reason


def read_audio(
    path: str | Path,
    *,
    rate_hz: int = 16_000,
    offset_s: float | int = 0.0,
    duration_s: float | int | None = None,
    min_s: float | int = 0.0,
    max_s: float | int | None = None,
    channels: int = 1,
) -> np.ndarray:
    """The samples float32 of a file of any format in `audio.formats` at `rate_hz` (Hz).

    `channels` 1 mixes down to mono `[N]`; more keep that many, `[N, channels]`, of a file that has just as many.
    Channels are averaged block by block and resampled on the way (soxr, high quality), so a long file never lies
    in memory at its own rate. `offset_s`, `duration_s`: the part to read, seconds. Raises `AudioError` whose
    `reason` is one of `REASONS`; `min_s` and `max_s` bound the length of the part in seconds.
    """
    path = Path(path)
    with _opened(path) as file:
        start, count = _part(file, path, offset_s, duration_s)
        check_length(count / file.samplerate, min_s, max_s, str(path))
        if channels not in (1, file.channels):
            raise AudioError("wrong_channels", f"{_shown(path)} has {file.channels}, {channels} are wanted")
        mixed = (mixed_down(block, channels) for block in _blocks(file, path, start, count))
        samples = _resampled(mixed, file.samplerate, rate_hz, channels)
    check_signal(samples, rate_hz, name=_shown(path))
    return samples


def audio_seconds(path: str | Path) -> float:
    """The length (seconds) of an audio file by its header; raises `AudioError` for what is none or has no sample."""
    path = Path(path)
    with _opened(path) as file:
        _part(file, path, 0.0, None)
        seconds = file.frames / file.samplerate
    check_length(seconds, 0.0, None, _shown(path))
    return seconds


def check_signal(
    samples: np.ndarray,
    rate_hz: float | int,
    min_s: float | int = 0.0,
    max_s: float | int | None = None,
    *,
    name: str = "signal",
) -> None:
    """Raise `AudioError` unless `samples` are finite, audible, in scale, of a usable rate (Hz) and length (seconds).

    `samples`: `[N]`, or `[N, channels]` of which one at least is audible.
    """
    if not LOWEST_RATE_HZ <= rate_hz <= HIGHEST_RATE_HZ:
        raise AudioError("bad_rate", f"{name}, {rate_hz} Hz")
    check_length(len(samples) / rate_hz, min_s, max_s, name)
    if not np.isfinite(samples).all():
        raise AudioError("not_finite", name)
    _check_peak(samples, name)
    if np.abs(samples - samples.mean(axis=0, dtype=np.float64)).max() < SILENT_PEAK:
        raise AudioError("silent", name)


def check_length(length_s: float, min_s: float | int, max_s: float | int | None, name: str) -> None:
    """Raise `AudioError` unless a signal of `length_s` seconds lies within bounds."""
    if length_s <= 0 or length_s < min_s:
        raise AudioError("too_short", f"{name}, {length_s:.4f} s (at least {min_s} s)")
    if max_s is not None and length_s > max_s:
        raise AudioError("too_long", f"{name}, {length_s:.2f} s (at most {max_s} s)")


def resample(samples: np.ndarray, from_hz: float | int, to_hz: float | int) -> np.ndarray:
    """`samples` `[N]` or `[N, channels]` at another rate (Hz), float32 `[round(N to / from)]` (soxr, high quality)."""
    samples = np.asarray(samples, np.float32)
    if from_hz == to_hz or not len(samples):
        return samples
    return soxr.resample(samples, from_hz, to_hz, quality="HQ")


def mixed_down(samples: np.ndarray, channels: int) -> np.ndarray:
    """`samples` `[N, C]` as they are, or with `channels` 1 their mean `[N]`, float32."""
    return samples.mean(axis=1, dtype=np.float32) if channels == 1 else samples


def write_wav(path: str | Path, samples: np.ndarray, rate_hz: int) -> Path:
    """Write `samples` `[N]` (or `[N, channels]`) as 16-bit PCM, clipped to [-1, 1]; returns the path.

    The file appears whole or not at all (written beside and renamed). Raises `AudioError` (`not_finite`)
    for NaN or infinite samples.
    """
    path, samples = Path(path), np.asarray(samples)
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        soundfile.write(_raw_name(unfinished), to_int16(samples), rate_hz, format="WAV", subtype="PCM_16")
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)
    return path


def to_int16(samples: np.ndarray) -> np.ndarray:
    """Samples in [-1, 1] as int16, rounded and clipped; int16 passes unchanged. Raises `AudioError` (`not_finite`)."""
    samples = np.asarray(samples)
    if samples.dtype == np.int16:
        return samples
    if not np.isfinite(samples).all():
        raise AudioError("not_finite", "samples to write")
    return np.round(np.clip(samples, -1.0, 1.0) * 32767.0).astype(np.int16)


def to_float(samples: np.ndarray) -> np.ndarray:
    """int16 samples as float32 in [-1, 1); floats pass as float32."""
    samples = np.asarray(samples)
    return samples.astype(np.float32) / 32768.0 if samples.dtype == np.int16 else samples.astype(np.float32)


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[soundfile.SoundFile]:
    """The open file; whatever the library says against it is an `AudioError`."""
    _check_path(path)
    try:
        with soundfile.SoundFile(_raw_name(path)) as file:
            yield file
    except (soundfile.LibsndfileError, RuntimeError, OSError) as error:
        raise AudioError("unreadable", f"{_shown(path)} ({_one_line(error)})") from error


def _check_path(path: Path) -> None:
    """Raise for what can be told before opening: absence, kind, permission, size, a WAV header that lies."""
    shown = _shown(path)
    try:
        found, regular = path.exists(), path.is_file()
        if not found:
            raise AudioError("missing", shown)
        if not regular:
            raise AudioError("not_a_file", shown)
        if not os.access(path, os.R_OK):
            raise AudioError("no_permission", shown)
        if path.stat().st_size == 0:
            raise AudioError("empty_file", shown)
        lacking = missing_bytes(path)
    except PermissionError as error:
        raise AudioError("no_permission", shown) from error
    except (OSError, ValueError) as error:
        if isinstance(error, AudioError):
            raise
        raise AudioError("missing", f"{shown} ({_one_line(error)})") from error
    if lacking:
        raise AudioError("truncated", f"{shown}, {lacking} bytes lacking")


def _part(
    file: soundfile.SoundFile, path: Path, offset_s: float | int, duration_s: float | int | None
) -> tuple[int, int]:
    """First frame and number of frames to read, in the file's own rate."""
    rate, shown = file.samplerate, _shown(path)
    if not LOWEST_RATE_HZ <= rate <= HIGHEST_RATE_HZ:
        raise AudioError("bad_rate", f"{shown}, {rate} Hz")
    total_s = file.frames / rate
    if not 0.0 <= offset_s < max(total_s, 1.0 / rate):  # also refuses NaN
        raise AudioError("bad_offset", f"{shown}, offset {offset_s} s of {total_s:.3f} s")
    start = round(offset_s * rate)
    if duration_s is None:
        return start, file.frames - start
    if not 0.0 < duration_s <= total_s - offset_s + DURATION_TOLERANCE_S:
        raise AudioError("bad_duration", f"{shown}, duration {duration_s} s from {offset_s} s of {total_s:.3f} s")
    return start, min(round(duration_s * rate), file.frames - start)


def _blocks(file: soundfile.SoundFile, path: Path, start: int, count: int) -> Iterator[np.ndarray]:
    """Float32 blocks `[N, C]`; raises when the samples end before `count`, are not finite or far out of scale."""
    file.seek(start)
    done = 0
    while done < count:
        block = file.read(min(BLOCK_FRAMES, count - done), dtype="float32", always_2d=True)
        if not len(block):
            raise AudioError("truncated", f"{_shown(path)}, {done} of {count} samples")
        if not np.isfinite(block).all():
            raise AudioError("not_finite", _shown(path))
        _check_peak(block, _shown(path))
        done += len(block)
        yield block


def _check_peak(samples: np.ndarray, name: str) -> None:
    peak = float(np.abs(samples).max())
    if peak > LOUDEST_PEAK:
        raise AudioError("too_loud", f"{name}, peak {peak:g}")


def _resampled(blocks: Iterator[np.ndarray], from_hz: int, to_hz: int, channels: int) -> np.ndarray:
    """The blocks joined at another rate, without the whole signal at the old one."""
    if from_hz == to_hz:
        parts = list(blocks)
    else:
        stream = soxr.ResampleStream(from_hz, to_hz, channels, dtype="float32", quality="HQ")
        parts = [stream.resample_chunk(block) for block in blocks]
        nothing = np.zeros((0,) if channels == 1 else (0, channels), np.float32)
        parts.append(stream.resample_chunk(nothing, last=True))
    return np.concatenate(parts) if parts else np.zeros(0, np.float32)


def _shown(path: Path) -> str:
    """The path for a message: quoted, so that a newline in a name stays on one line."""
    return repr(os.fsencode(path).decode(errors="replace"))


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())


def _raw_name(path: Path) -> Any:
    """The bytes of the name, so that names that are not UTF-8 open too (soundfile takes bytes without saying so)."""
    return os.fsencode(path)
