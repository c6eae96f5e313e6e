"""Held-out speech of a run: what judges listen to and what a system is tried on."""

from typing import Any

import numpy as np

from slm_jax.audio.files import resample
from slm_jax.core.messages import Conversation, spoken
from slm_jax.data.passes import float_samples
from slm_jax.evaluation.section import Lacking
from slm_jax.training.kept import SPEECH, kept_folder


def speech_of(context: Any, split: str, kinds: tuple[str, ...] | None = None) -> Any:
    """The examples of a split in a `StageContext`; empty where there are none or the run folder keeps none."""
    if context.kept and not (kept_folder(context.run).path / SPEECH / split).is_dir():
        return ()
    return context.source(split, kinds)


def held_out(context: Any, count: int, longer_than_s: float | int = 0.0) -> list[dict[str, Any]]:
    """The first `count` items of the test split that are longer than so many seconds; raises `Lacking` without any."""
    source, rate_hz = speech_of(context, "test"), context.corpus.rate_hz
    found: list[dict[str, Any]] = []
    for i in range(len(source)):
        if len(found) == count:
            break
        item = source[i]
        if len(item["samples"]) > longer_than_s * rate_hz:
            found.append(item)
    if not found:
        raise Lacking(f"held-out utterances is 0: at least one longer than {longer_than_s:g} s is needed")
    return found


def waveform(item: dict[str, Any], context: Any, rate_hz: int) -> np.ndarray:
    """The samples of an item `[N]` float32 at `rate_hz` (Hz), its channels averaged."""
    samples = float_samples(item["samples"])
    mono = samples if samples.ndim == 1 else samples.mean(axis=1)
    return resample(mono, context.corpus.rate_hz, rate_hz)


def openings(context: Any, count: int, seconds: float | int | None = None) -> dict[str, Conversation]:
    """Held-out utterances as conversations by the items' ids; their first `seconds`, all of them where it is None."""
    rate_hz = context.corpus.rate_hz
    found = {}
    for item in held_out(context, count, 0.0 if seconds is None else seconds):
        end = None if seconds is None else round(seconds * rate_hz)
        found[item["id"]] = spoken(waveform(item, context, rate_hz)[:end], rate_hz)
    return found
