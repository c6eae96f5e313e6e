"""Speech sets of TensorFlow Datasets."""

import contextlib
import functools
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tensorflow_datasets as tfds

from slm_jax.audio.files import AudioError, check_signal, mixed_down, resample
from slm_jax.core.config import from_json
from slm_jax.core.errors import UserError, nearest
from slm_jax.data.corpora.recordings import PART, Entry, accepted, rejection
from slm_jax.data.corpora.settings import TFDSConfig
from slm_jax.data.corpora.splits import SPLIT_NAMES

AUDIO_KEYS = ("audio", "speech", "samples", "waveform")
TEXT_KEYS = ("text", "transcript", "transcription", "normalized_text", "sentence")
SPEAKER_KEYS = ("speaker", "speaker_id", "client_id")
RANDOM_ACCESS = ("array_record", "parquet")
INSTALL = "needs TensorFlow: pip install tensorflow-cpu"


class Job(NamedTuple):
    """One part: the settings, as JSON text, the set's own split, and the positions to read."""

    settings: str
    split: str
    start: int
    stop: int


class Keys(NamedTuple):
    """Which features of a set are the audio, the text and the speaker (empty for none), and the audio's rate."""

    audio: str
    text: str
    speaker: str
    rate_hz: int


def jobs(config: TFDSConfig) -> tuple[list[Job], str]:
    """The parts of a set, and what identifies its content. Raises `UserError` when the set cannot be read."""
    builder = _prepared(config)
    find_keys(config, builder.info.features)
    stored = builder.info.file_format.value
    if stored not in RANDOM_ACCESS:
        rule = f"only {' and '.join(RANDOM_ACCESS)} can be read at random; prepare the set anew as array_record"
        raise UserError(f"tfds:{config.name} is stored as {stored}: {rule}")
    settings = json.dumps(config.to_json(), sort_keys=True)
    sizes = {name: split.num_examples for name, split in sorted(builder.info.splits.items())}
    parts = [Job(settings, s, i, min(i + PART, n)) for s, n in sizes.items() for i in range(0, n, PART)]
    return parts, json.dumps([builder.info.full_name, sizes, [s.num_bytes for s in builder.info.splits.values()]])


def read_items(job: Job) -> list[dict[str, Any]]:
    """A record for every item of one part."""
    config = from_json(json.loads(job.settings))
    if not isinstance(config, TFDSConfig):
        raise UserError(f"tfds settings are a {type(config).__name__}: they must be a TFDSConfig")
    source, keys = _source(config, job.split)
    return [_record(source, keys, i, job.split, config) for i in range(job.start, job.stop)]


@functools.lru_cache(maxsize=4)
def _source(config: TFDSConfig, split: str) -> tuple[Any, Keys]:
    builder = _prepared(config)
    return _needing_tensorflow(config, lambda: builder.as_data_source(split)), find_keys(config, builder.info.features)


def _record(source: Any, keys: Keys, index: int, split: str, config: TFDSConfig) -> dict[str, Any]:
    name = f"{split}-{index}"
    try:
        item = source[index]
    except ImportError as error:
        raise UserError(f"tfds:{config.name} {INSTALL} ({error})") from error
    except Exception as error:
        return rejection(name, "decode_error", f"{type(error).__name__}: {error}")
    text = _as_text(item[keys.text]) if keys.text else None
    if not text and config.require_text:
        return rejection(name, "null_text", f"tfds:{config.name}")
    try:
        samples = _samples(item[keys.audio], keys.rate_hz, config)
    except AudioError as error:
        return rejection(name, error.reason, str(error))
    speaker = _as_text(item[keys.speaker]) if keys.speaker else ""
    entry = Entry(name, f"tfds:{config.name}/{split}", text or None, speaker, split=SPLIT_NAMES.get(split, ""))
    return accepted(entry, samples, config) | {
        "source": f"tfds:{config.name}",
        "warnings": [] if text else ["null_text"],
    }


def _samples(audio: Any, rate_hz: int, config: TFDSConfig) -> np.ndarray:
    """Checked float32 samples at the corpus' rate; integers are scaled by 2^15, as TFDS gives 16-bit audio."""
    audio = np.asarray(audio)
    scaled = audio.astype(np.float32) / (32768.0 if np.issubdtype(audio.dtype, np.integer) else 1.0)
    channels = 1 if scaled.ndim == 1 else scaled.shape[-1]
    if config.channels not in (1, channels):
        raise AudioError("wrong_channels", f"an item has {channels}, {config.channels} are wanted")
    mixed = scaled if scaled.ndim == 1 else mixed_down(scaled, config.channels)
    check_signal(mixed, rate_hz, config.min_s, config.max_s)
    return resample(mixed, rate_hz, config.rate_hz)


def find_keys(config: TFDSConfig, features: Any) -> Keys:
    """The features to read: those that the config names, or those with a usual name."""
    audio = _key(config.audio_key, AUDIO_KEYS, features, "audio_key")
    if not audio:
        known = ", ".join(features)
        raise UserError(f"tfds:{config.name} has no audio under a usual name: set audio_key to one of {known}")
    declared = getattr(features[audio], "sample_rate", None)
    if not (config.source_rate_hz or declared):
        raise UserError(f"tfds:{config.name} does not declare the rate of {audio!r}: set source_rate_hz (Hz)")
    text = _key(config.text_key, TEXT_KEYS, features, "text_key")
    return Keys(
        audio,
        text,
        _key(config.speaker_key, SPEAKER_KEYS, features, "speaker_key"),
        config.source_rate_hz or int(declared),
    )


def _key(wanted: str, usual: tuple[str, ...], features: Any, field: str) -> str:
    if wanted and wanted not in features:
        raise UserError(f"{field} is {wanted!r}: features are {', '.join(features)}{nearest(wanted, features)}")
    return wanted or next((key for key in usual if key in features), "")


def _prepared(config: TFDSConfig) -> Any:
    """The builder of a set that is prepared, or that can be prepared here."""
    if Path(config.name).is_dir():
        return _needing_tensorflow(config, lambda: tfds.builder_from_directory(config.name))
    builder = _needing_tensorflow(config, lambda: _named(config))
    if not builder.info.splits:
        _needing_tensorflow(config, builder.download_and_prepare)
    return builder


def _named(config: TFDSConfig) -> Any:
    try:
        return tfds.builder(config.name, data_dir=config.tfds_dir or None, file_format="array_record")
    except tfds.core.DatasetNotFoundError as error:
        known = tfds.list_builders(with_community_datasets=False)
        raise UserError(f"tfds:{config.name} is not a known set{nearest(config.name, known)}") from error


def _needing_tensorflow(config: TFDSConfig, action: Callable[[], Any]) -> Any:
    """What `action` returns; where TensorFlow is missing, one line instead of the banner that TFDS prints."""
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            return action()
    except ImportError as error:
        raise UserError(f"tfds:{config.name} {INSTALL} ({error})") from error


def _as_text(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
