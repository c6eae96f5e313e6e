"""Units against phones: the run's encoder layer beside MFCC under equal treatments."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np

from slm_jax.assemblies.phonetic_tokenizer import MFCCFeaturesConfig
from slm_jax.audio.plots import Span, plot_units
from slm_jax.core.types import Frames
from slm_jax.data.corpus import PHONES
from slm_jax.data.joined import Subset
from slm_jax.evaluation.metrics import heading
from slm_jax.evaluation.section import JudgeConfig, JudgeSettings, Lacking, Plot, Section, Table
from slm_jax.evaluation.unit_comparison import TREATMENTS, Compared, FeatureSet, compare_features
from slm_jax.evaluation.units import frame_labels
from slm_jax.quantizers.postprocess import PostprocessConfig
from slm_jax.serving.unit_speech_lm import UnitSpeechLM
from slm_jax.token_compression.dedup import repeat_row
from slm_jax.training.feature_passes import extracted, thinned
from slm_jax.training.held_out import held_out, speech_of, waveform
from slm_jax.training.stages import StageContext
from slm_jax.training.token_stage import TokenStageConfig, token_stage

QUICK_TREATMENTS = (PostprocessConfig(), PostprocessConfig(normalise="standardise", smooth=3))
QUICK_PASSES = 20
SCORES = ("phone_purity", "cluster_purity", "pnmi", "bitrate", "run_bitrate")
COLUMNS = ("feature", "normalise", "smooth", "clusters", *SCORES)
HEADER = ("feature", "normalisation", "window", "K", *map(heading, SCORES))
WORDS = (
    "K-means on each feature after equal treatment, scored on the same frames of held-out speech. Phone purity: a unit "
    "read as its most frequent phone is right so often. PNMI: the share of uncertainty about the phone that the unit "
    "removes. Bits per second: the entropy of a unit times units per second, of the units of all frames and of those "
    "that are left without repetitions."
)


class UnitsJudge(JudgeConfig):
    """How well units match phones, and a picture of one utterance above its units."""

    name: str = "units"

    def judge(self, system: UnitSpeechLM, context: StageContext, settings: JudgeSettings) -> Section:
        stage = token_stage(context, system.origin.units)
        plots = unit_plots(system, context)
        try:
            rows = [one.to_json() for one in compare_units(context, stage, settings)]
        except Lacking as lacking:
            left_out = self.left_out(str(lacking))
            return Section("Speech as units", left_out.words, {"units": [], **left_out.figures}, plots=plots)
        table = Table(HEADER, [[row[column] for column in COLUMNS] for row in rows])
        return Section("How well units match phones", WORDS, {"units": rows}, (table,), plots=plots)


def compare_units(context: StageContext, units: TokenStageConfig, settings: JudgeSettings) -> list[Compared]:
    """The encoder's layer beside MFCC under equal treatments; raises `Lacking` without true phones."""
    test, train = speech_of(context, "test"), speech_of(context, "train")
    if not has_phones(test) or not has_phones(train):
        raise Lacking("the corpus has no true phones")
    test = Subset(test, range(min(settings.scored_utterances, len(test))))
    layer = units.clustered(context)
    if layer is None:
        raise Lacking(f"stage {units.name!r} does not cluster a layer of an encoder")
    treatments, kmeans, fit_frames = TREATMENTS, layer.kmeans, settings.fit_frames
    if not settings.thorough:
        treatments = tuple(dict.fromkeys((*QUICK_TREATMENTS, layer.postprocess)))
        kmeans, fit_frames = kmeans.replace(iterations=QUICK_PASSES), fit_frames // 2
    kinds: dict[str, tuple[Any, Any]] = {"mfcc 39": (MFCCFeaturesConfig(), None)}
    kinds["mfcc 13"] = (MFCCFeaturesConfig(coefficients=13), None)
    kinds[layer.name] = layer.features, layer.params
    sets: dict[str, FeatureSet] = {}
    labels: list[np.ndarray] = []
    for name, (features, params) in kinds.items():
        fitted = thinned(train, features, fit_frames)
        seen = [frames for _, frames in extracted(features, params, fitted, context, f"{name} train")]
        scored = list(extracted(features, params, test, context, f"{name} test"))
        sets[name] = FeatureSet(seen, [frames for _, frames in scored])
        labels = labels or phone_labels(test, scored)
    seeds = settings.seeds
    return compare_features(sets, labels, len(PHONES), kmeans, seeds=seeds, treatments=treatments, progress=context.say)


def unit_plots(system: UnitSpeechLM, context: StageContext) -> tuple[Plot, ...]:
    """One utterance as spectrogram and units, with its phones where they are known; none without held-out speech."""
    try:
        item = held_out(context, 1, longer_than_s=1.0)[0]
    except Lacking:
        return ()
    samples = waveform(item, context, system.rate_hz)
    speech = system.encode([samples])[0]
    draw = partial(
        plot_units,
        samples=samples,
        rate_hz=system.rate_hz,
        units=repeat_row(speech.runs, speech.durations),
        unit_rate_hz=system.rate_hz / system.vocoder.config.hop,
        phones=phone_spans(item),
        title=item["text"] or item["id"],
    )
    return (Plot("units", draw, "Log-mel spectrogram with units, one colour each (and phones where they are known)"),)


def phone_spans(item: dict[str, Any]) -> list[Span]:
    """(start s, end s, phone) of an item, none where they are not known."""
    columns = (item.get(name, ()) for name in ("phone_start_s", "phone_end_s", "phones"))
    return [(float(start), float(end), phone) for start, end, phone in zip(*columns, strict=True)]


def has_phones(source: Any) -> bool:
    """Are the phones of these examples known?"""
    return len(source) > 0 and "phone_ids" in source[0]


def phone_labels(source: Any, batches: Sequence[tuple[dict[str, Any], Frames]]) -> list[np.ndarray]:
    """The phone of every frame, for the rows of a pass in their order."""
    labels = []
    for rows, frames in batches:
        counts = np.asarray(frames.mask).sum(1)
        for index, count in zip(rows["index"], counts, strict=True):
            if index >= 0:
                labels.append(true_phones(source[int(index)], int(count)))
    return labels


def true_phones(item: dict[str, Any], frames: int) -> np.ndarray:
    """The phone at the middle of each of `frames` frames."""
    return frame_labels(item["phone_start_s"], item["phone_end_s"], item["phone_ids"], frames)
