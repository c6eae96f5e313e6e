"""ABX of phones: a run's units and the layer that they are made of, beside MFCC."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from slm_jax.assemblies.phonetic_tokenizer import RATE_HZ, MFCCFeaturesConfig
from slm_jax.data.corpus import PHONES
from slm_jax.data.joined import Subset
from slm_jax.evaluation.abx import ABXConfig, ABXScores, abx
from slm_jax.evaluation.abx_items import Item, one_hot, triphones
from slm_jax.evaluation.metrics import heading
from slm_jax.evaluation.section import JudgeConfig, JudgeSettings, Lacking, Section, Table
from slm_jax.judges.units import has_phones
from slm_jax.serving.unit_speech_lm import UnitSpeechLM
from slm_jax.training.feature_passes import Features, extracted
from slm_jax.training.held_out import speech_of, waveform
from slm_jax.training.stages import StageContext
from slm_jax.training.token_stage import token_stage

SILENCE = PHONES[0]
COLUMNS = ("triplets_within", "triplets_across", "items", "pairs")
WORDS = (
    "How often X, a phone between two others, is nearer to a different phone between the same two than to its like: "
    "0.5 is chance, 0 the best. All within one speaker, or X from another one. Frames of whole triphones are warped "
    "onto each other; units are either equal or not."
)
Frames = Mapping[str, np.ndarray]
"""The frames `[T, D]` of utterances by their ids."""


class ABXJudge(JudgeConfig):
    """Do units and features tell phones apart, whoever speaks?

    On the first `scored_utterances` of the settings that one voice speaks. `abx`: how items are compared.
    """

    name: str = "abx"
    abx: ABXConfig = ABXConfig()

    def judge(self, system: UnitSpeechLM, context: StageContext, settings: JudgeSettings) -> Section:
        speech = scored_speech(context, settings.scored_utterances)
        items = [item for place in range(len(speech)) for item in items_of(speech[place])]
        scores: dict[str, ABXScores] = {}
        for name, (frames, rate_hz) in self.features(system, context, speech).items():
            scores[name] = abx(frames, items, rate_hz, self.abx)
            context.say(f"{name}: ABX within {scores[name].within}, across {scores[name].across}")
        header = ("", heading("abx_within"), heading("abx_across"), *(name.replace("_", " ") for name in COLUMNS))
        figures = {name: one.to_json() for name, one in scores.items()}
        rows = [[name, row["within"], row["across"], *(row[key] for key in COLUMNS)] for name, row in figures.items()]
        return Section("ABX", WORDS, {self.name: figures}, (Table(header, rows),))

    def features(self, system: UnitSpeechLM, context: StageContext, speech: Any) -> dict[str, tuple[Frames, float]]:
        """Frames by name, and how many there are in a second."""
        mfcc, layer = MFCCFeaturesConfig(), token_stage(context, system.origin.units).clustered(context)
        kinds: dict[str, tuple[Features, Any]] = {"mfcc 39": (mfcc, None)}
        if layer is not None:
            kinds[layer.name] = layer.features, layer.params
        found: dict[str, tuple[Frames, float]] = {
            name: (frames_by_id(features, params, speech, context, name), RATE_HZ / features.hop)
            for name, (features, params) in kinds.items()
        }
        spec = system.tokenizer.spec
        rows = [speech[place] for place in range(len(speech))]
        units = system.tokenizer.encode_all([waveform(row, context, spec.rate_hz) for row in rows])
        told = {row["id"]: one_hot(ids, spec.units) for row, ids in zip(rows, units, strict=True)}
        return found | {"units": (told, spec.frames_per_second)}


def scored_speech(context: StageContext, count: int) -> Subset:
    """Held-out utterances of one voice each whose phones are known; raises `Lacking` without any."""
    test = speech_of(context, "test")
    if not has_phones(test):
        raise Lacking("the corpus has no true phones")
    chosen = [place for place in range(len(test)) if len(test[place].get("turns", ())) < 2][:count]
    if not chosen:
        raise Lacking("no held-out utterance is spoken by one voice alone")
    return Subset(test, chosen)


def items_of(item: dict[str, Any]) -> list[Item]:
    """The triphones of an utterance that hold no silence."""
    spans = item["phone_start_s"], item["phone_end_s"]
    return triphones(item["id"], item["speaker"], *spans, item["phones"], left_out=(SILENCE,))


def frames_by_id(
    features: Features, params: Any, speech: Sequence[Any] | Subset, context: StageContext, name: str
) -> Frames:
    """The real frames of every utterance."""
    found = {}
    for rows, frames in extracted(features, params, speech, context, f"{name} for ABX"):
        values, mask = np.asarray(frames.values, np.float32), np.asarray(frames.mask)
        for row in np.flatnonzero(rows["valid"]):
            found[speech[int(rows["index"][row])]["id"]] = values[row][mask[row]]
    return found
