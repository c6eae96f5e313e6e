"""Openings that the system speaks on, beside their real rest and the same units shuffled."""

from collections.abc import Sequence

import jax
import numpy as np

from slm_jax.audio.files import resample
from slm_jax.core.messages import spoken
from slm_jax.evaluation.language_model import at_equal_length, sequence_statistics, share_seen, shuffled
from slm_jax.evaluation.phone_classifier import PhoneClassifier, posterior_statistics
from slm_jax.evaluation.resynthesis import voiced_share
from slm_jax.evaluation.section import JudgeConfig, JudgeSettings, Lacking, Section, Sound, rows_of
from slm_jax.judges.language_model import unit_tables
from slm_jax.judges.phones import train_phone_classifier
from slm_jax.serving.unit_speech_lm import UnitSpeechLM
from slm_jax.training.held_out import held_out, waveform
from slm_jax.training.stages import StageContext

Figures = dict[str, float | None]
Groups = dict[str, list[np.ndarray]]
"""Name -> sequences of deduplicated units."""
SHOWN = 4
"""Ways of going on that are kept as sounds."""
REST_S = 0.5
"""What must be left of an utterance after its opening."""
STATISTICS = ("bigram_entropy", "conditional_entropy", "longest_run", "longest_loop", "distinct_bigrams")
WORDS = "All spoken by the same vocoder; entropies at equal numbers of units."


class ContinuationsJudge(JudgeConfig):
    """Does made-up speech look and sound like speech?"""

    name: str = "continuations"

    def judge(self, system: UnitSpeechLM, context: StageContext, settings: JudgeSettings) -> Section:
        items = held_out(context, settings.utterances, longer_than_s=1.0)
        originals = [waveform(item, context, system.rate_hz) for item in items]
        training = unit_tables(context, system.origin.units)["train"]
        groups = continued(system, originals, jax.random.key(0))
        known = train_phone_classifier(context, settings)
        classifier, figures = (None, {}) if known is None else (known[0], {"phone_classifier_accuracy": known[1]})
        judged, sounds = judge_continuations(system, groups, training, classifier)
        prompt = originals[0][: round(system.prompt_s * system.rate_hz)]
        heard = [Sound("prompt", prompt, system.rate_hz, "Prompt (recorded)"), *ways_on(system, prompt)]
        for control in sounds["shuffled real"][:1]:
            heard.append(Sound("shuffled", control, system.rate_hz, "Real units in random order (control)"))
        empty = sum(len(row) == 0 for row in groups["continuations"])
        words = f"{WORDS} {empty} of {len(groups['continuations'])} continuations were empty." if empty else WORDS
        return Section("Continuations", words, {**figures, self.name: judged}, (rows_of(judged),), heard)


def continued(system: UnitSpeechLM, originals: Sequence[np.ndarray], key: jax.Array) -> Groups:
    """Units of continuations of the openings of `originals`, their real rest, and the same shuffled.

    Raises `Lacking` when no original is half a second longer than its opening.
    """
    cut = round(system.prompt_s * system.rate_hz)
    kept = [one for one in originals if len(one) > cut + round(REST_S * system.rate_hz)]
    if not kept:
        raise Lacking(f"no held-out utterance is longer than {system.prompt_s + REST_S:g} s")
    prompts, rest = in_two(system, kept, cut)
    made = system.generate(prompts, key, system.decoding.sampling)
    return {"real": rest, "continuations": made, "shuffled real": shuffled(rest)}


def in_two(
    system: UnitSpeechLM, originals: Sequence[np.ndarray], cut: int
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Units of the first `cut` samples of each recording, and those that come after them in the whole."""
    prompts = [one.runs for one in system.encode([one[:cut] for one in originals])]
    whole = [one.runs for one in system.encode(originals)]
    return prompts, [full[len(prompt) :] for full, prompt in zip(whole, prompts, strict=True)]


def judge_continuations(
    system: UnitSpeechLM, groups: Groups, training: Sequence[np.ndarray], classifier: PhoneClassifier | None
) -> tuple[dict[str, Figures], dict[str, list[np.ndarray]]]:
    """Figures and sounds of groups of unit sequences.

    All are spoken by the same vocoder with predicted durations and F0, so that only the units differ. A group that
    holds no unit at all has None for figures.
    """
    sounding = {name: units for name, units in groups.items() if any(map(len, units))}
    equal = dict(zip(sounding, at_equal_length(*sounding.values()), strict=True))
    figures, sounds = {}, {}
    for name, units in groups.items():
        said = system.decode([row for row in units if len(row) > 0]) if name in sounding else []
        figures[name] = continuation_figures(equal.get(name, []), said, system.rate_hz, training, classifier)
        sounds[name] = said
    return figures, sounds


def ways_on(system: UnitSpeechLM, prompt: np.ndarray) -> list[Sound]:
    """One recorded opening spoken on in several ways, the opening in the vocoder's voice too."""
    how = system.decoding.replace(with_prompt=True)
    said = system.respond([spoken(prompt, system.rate_hz)] * SHOWN, how, jax.random.key(1))
    clips = [reply.messages[0].speech[0] for reply in said]
    return [
        Sound(f"continuation_{number}", clip.samples, clip.rate_hz, f"Continuation {number}")
        for number, clip in enumerate(clips, start=1)
    ]


def continuation_figures(
    units: Sequence[np.ndarray],
    sounds: Sequence[np.ndarray],
    rate_hz: int,
    training: Sequence[np.ndarray],
    classifier: PhoneClassifier | None,
) -> Figures:
    """What a group of unit sequences and their sounds are like; None where there are none."""
    statistics = sequence_statistics(units).to_json()
    figures: Figures = {name: statistics[name] for name in STATISTICS}
    figures["trigrams_seen_in_training"] = share_seen(units, training, 3)
    figures["voiced_share"] = float(np.mean([voiced_share(sound, rate_hz) for sound in sounds])) if sounds else None
    if classifier is not None:
        figures |= dict.fromkeys(("phone_posterior", "phone_entropy"))
    if classifier is not None and sounds:
        heard = [resample(sound, rate_hz, classifier.config.mel.rate_hz) for sound in sounds]
        posterior = posterior_statistics([classifier.posterior(sound) for sound in heard])
        figures["phone_posterior"], figures["phone_entropy"] = posterior.mean_highest, posterior.entropy
    return figures if sounds else dict.fromkeys(figures)
