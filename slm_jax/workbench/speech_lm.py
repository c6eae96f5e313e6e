"""Judging a unit speech LM from end to end: units, language model, resynthesis, continuations.

Every part writes figures (plain JSON), and some leave sounds and pictures for the report. What needs true phones is
left out, with the reason, where a corpus has none.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from slm_jax.assemblies.phonetic_tokenizer import MFCCFeaturesConfig
from slm_jax.core.errors import UserError, require
from slm_jax.core.types import Frames
from slm_jax.data.corpus import PHONES
from slm_jax.data.joined import Subset
from slm_jax.data.passes import float_samples
from slm_jax.data.records import RecordSource
from slm_jax.evaluation.language_model import at_equal_length, fit_ngram, sequence_statistics, share_seen, shuffled
from slm_jax.evaluation.phone_classifier import PhoneClassifier, PhoneClassifierConfig, posterior_statistics
from slm_jax.evaluation.resynthesis import griffin_lim_from_mel, mean_scores, score_resynthesis, voiced_share
from slm_jax.evaluation.unit_comparison import TREATMENTS, Compared, FeatureSet, compare_features
from slm_jax.evaluation.units import frame_labels
from slm_jax.generation.sampling import SamplingConfig
from slm_jax.quantizers.postprocess import PostprocessConfig
from slm_jax.serving.unit_speech_lm import UnitSpeechLM
from slm_jax.training.pre.frame_units import (
    FrameUnitsConfig,
    LayerOfStageConfig,
    extracted,
    layer_features,
    thinned,
)
from slm_jax.training.pre.pitch import PitchStageConfig
from slm_jax.training.pre.unit_vocoder import UnitVocoderStageConfig
from slm_jax.training.stages import StageContext

Say = Callable[[str], None]
QUICK_TREATMENTS = (PostprocessConfig(), PostprocessConfig(normalise="standardise", smooth=3))
QUICK_PASSES = 20
Track = tuple[np.ndarray, np.ndarray]


@dataclasses.dataclass(frozen=True, kw_only=True)
class JudgeSettings:
    """How much is looked at.

    `utterances`: held-out ones to resynthesise and continue. `seeds`: of k-means in the comparison of features.
    `thorough`: compare under all treatments, clustering `fit_frames` frames to the end; without it under the run's own
    and two more, with fewer frames and passes.
    """

    utterances: int = 24
    seeds: int = 1
    thorough: bool = False
    fit_frames: int = 60_000
    scored_utterances: int = 400
    phone_utterances: int = 300


def judge_units(context: StageContext, units: FrameUnitsConfig, settings: JudgeSettings, say: Say) -> list[Compared]:
    """The encoder's layer beside MFCC under equal treatments; an empty list where the corpus has no phones."""
    test = context.source("test")
    if "phone_ids" not in test[0]:
        return []
    train = context.source("train")
    test = Subset(test, range(min(settings.scored_utterances, len(test))))
    layer = units.features
    if not isinstance(layer, LayerOfStageConfig):
        raise UserError(f"stage {units.name!r} clusters {type(layer).__name__}: it must cluster a layer of an encoder")
    treatments, kmeans, fit_frames = TREATMENTS, units.kmeans, settings.fit_frames
    if not settings.thorough:
        treatments = tuple(dict.fromkeys((*QUICK_TREATMENTS, units.postprocess)))
        kmeans, fit_frames = kmeans.replace(iterations=QUICK_PASSES), fit_frames // 2
    kinds: dict[str, tuple[Any, Any]] = {"mfcc 39": (MFCCFeaturesConfig(), None)}
    kinds["mfcc 13"] = (MFCCFeaturesConfig(coefficients=13), None)
    kinds[f"{layer.stage} layer {layer.layer}"] = layer_features(context.finished(layer.stage), layer.layer)
    sets: dict[str, FeatureSet] = {}
    labels: list[np.ndarray] = []
    for name, (features, params) in kinds.items():
        fitted = thinned(train, features, fit_frames)
        seen = [frames for _, frames in extracted(features, params, fitted, context, f"{name} train")]
        scored = list(extracted(features, params, test, context, f"{name} test"))
        sets[name] = FeatureSet(seen, [frames for _, frames in scored])
        labels = labels or phone_labels(test, scored)
    return compare_features(
        sets, labels, len(PHONES), kmeans, seeds=settings.seeds, treatments=treatments, progress=say
    )


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


def judge_language_model(system: UnitSpeechLM, tables: Mapping[str, Sequence[np.ndarray]]) -> dict[str, float]:
    """Nats per unit (the end counted) on the test split: the model beside smoothed n-grams.

    `tables`: deduplicated units of the splits. The n-grams are counted on train and smoothed on dev.
    """
    units = system.tokenizer.units
    model = -np.concatenate(system.log_probs(tables["test"])).mean()
    figures = {"model": float(model)}
    for order, name in enumerate(("unigram", "bigram", "trigram"), start=1):
        ngram = fit_ngram(tables["train"], units, order, tune_on=tables["dev"], count_end=True)
        figures[name] = ngram.nats_per_unit(tables["test"])
    figures["under_bigram"] = figures["bigram"] - figures["model"]
    return figures


def unit_tables(context: StageContext, stage: str) -> dict[str, list[np.ndarray]]:
    """Deduplicated units of every utterance, by split."""
    folder = context.finished(stage)
    tables = {}
    for split in ("train", "dev", "test"):
        source = RecordSource(FrameUnitsConfig.records(folder, split))
        tables[split] = [source[i]["runs"] for i in range(len(source))]
    return tables


def judge_resynthesis(
    system: UnitSpeechLM, originals: Sequence[np.ndarray], tracks: Sequence[Track], speakers: Sequence[int], say: Say
) -> tuple[dict[str, dict[str, float | None]], dict[str, list[np.ndarray]]]:
    """Scores of speech rebuilt from its units, beside Griffin-Lim on the true mel; and the sounds by name.

    `speakers`: each utterance's own voice, as a place in `system.speakers`.
    """
    speech = system.encode(originals)
    runs, durations = [one.runs for one in speech], [one.durations for one in speech]
    made = {
        "units, with the recording's durations and F0": system.decode(
            runs, durations=durations, f0=tracks, speaker=speakers
        ),
        "units, with its durations, predicted F0": system.decode(runs, durations=durations, speaker=speakers),
        "Griffin-Lim (60 iterations) on the true mel": [griffin_lim_from_mel(one) for one in originals],
    }
    figures = {}
    for name, sounds in made.items():
        pairs = zip(originals, sounds, strict=True)
        figures[name] = mean_scores([score_resynthesis(original, sound) for original, sound in pairs])
        say(f"{name}: STOI {figures[name]['stoi']:.3f}")
    return figures, made


def frame_tracks(items: Sequence[dict[str, Any]], context: StageContext, vocoder: str) -> list[Track]:
    """F0 (Hz) and voicing of every vocoder frame of each item, as the vocoder of stage `vocoder` was trained on."""
    stage = UnitVocoderStageConfig.of(context.finished(vocoder))
    pitch, example = PitchStageConfig.of(context.finished(stage.pitch)), stage.example(context)
    frames = [len(item["samples"]) // example.hop_samples for item in items]
    return [example.frame_f0(pitch.track(item), 0, count) for item, count in zip(items, frames, strict=True)]


def judge_continuations(
    system: UnitSpeechLM,
    originals: Sequence[np.ndarray],
    training: Sequence[np.ndarray],
    prompt_s: float,
    sampling: SamplingConfig,
    classifier: PhoneClassifier | None,
    key: jax.Array,
) -> tuple[dict[str, dict[str, float | None]], dict[str, list[np.ndarray]]]:
    """Continuations of the openings of `originals`, beside their real rest and the same units shuffled.

    All three are spoken by the same vocoder with predicted durations and F0, so that only the units differ.
    """
    cut = round(prompt_s * system.rate_hz)
    kept = [one for one in originals if len(one) > cut + system.rate_hz // 2]
    prompts = [one.runs for one in system.encode([one[:cut] for one in kept])]
    whole = [one.runs for one in system.encode(kept)]
    rest = [full[len(prompt) :] for full, prompt in zip(whole, prompts, strict=True)]
    made = system.generate(prompts, key, sampling)
    groups = {"real": rest, "continuations": made, "shuffled real": shuffled(rest)}
    equal = dict(zip(groups, at_equal_length(*groups.values()), strict=True))
    figures, sounds = {}, {}
    for name, units in groups.items():
        spoken = system.decode([row for row in units if len(row) > 0])
        figures[name] = continuation_figures(equal[name], spoken, training, classifier)
        sounds[name] = spoken
    return figures, sounds


def continued(
    system: UnitSpeechLM, prompt: np.ndarray, count: int, sampling: SamplingConfig, key: jax.Array
) -> list[np.ndarray]:
    """One recorded opening spoken on in `count` different ways, the opening in the vocoder's voice too."""
    units = system.encode([prompt])[0].runs
    made = system.generate([units] * count, key, sampling)
    return system.decode([np.concatenate([units, row]) for row in made])


def continuation_figures(
    units: Sequence[np.ndarray],
    sounds: Sequence[np.ndarray],
    training: Sequence[np.ndarray],
    classifier: PhoneClassifier | None,
) -> dict[str, float | None]:
    """What a group of unit sequences and their sounds are like."""
    statistics = sequence_statistics(units).to_json()
    chosen = ("bigram_entropy", "conditional_entropy", "longest_run", "longest_loop", "distinct_bigrams")
    figures: dict[str, float | None] = {name: statistics[name] for name in chosen}
    figures["trigrams_seen_in_training"] = share_seen(units, training, 3)
    figures["voiced_share"] = float(np.mean([voiced_share(sound) for sound in sounds]))
    if classifier is not None:
        posterior = posterior_statistics([classifier.posterior(sound) for sound in sounds])
        figures["phone_posterior"], figures["phone_entropy"] = posterior.mean_highest, posterior.entropy
    return figures


def train_phone_classifier(context: StageContext, settings: JudgeSettings) -> tuple[PhoneClassifier, float] | None:
    """A classifier trained on true phones and its accuracy on the test split; None where there are no phones."""
    test = context.source("test")
    if "phone_ids" not in test[0]:
        return None
    train = context.source("train")
    taken = [labelled(train[i]) for i in range(min(settings.phone_utterances, len(train)))]
    classifier = PhoneClassifierConfig(phones=len(PHONES)).make().fit(taken, jax.random.key(0))
    held_out = [labelled(test[i]) for i in range(min(settings.utterances, len(test)))]
    return classifier, classifier.accuracy(held_out)


def labelled(item: dict[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    """Samples and the phone of each 20 ms frame."""
    samples = float_samples(item["samples"])
    return samples, true_phones(item, len(samples) // 320)


def held_out(context: StageContext, count: int, longer_than_s: float = 0.0) -> list[dict[str, Any]]:
    """The first `count` items of the test split that are longer than so many seconds; at least one is needed."""
    source = context.source("test")
    found: list[dict[str, Any]] = []
    for i in range(len(source)):
        if len(found) == count:
            break
        item = source[i]
        if len(item["samples"]) > longer_than_s * 16_000:
            found.append(item)
    require(bool(found), "held-out utterances", 0, f"at least one longer than {longer_than_s:g} s is needed")
    return found
