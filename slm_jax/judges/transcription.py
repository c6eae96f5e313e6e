"""Held-out speech written down: word and character errors, beside the same transcripts against other references."""

import dataclasses
from collections.abc import Sequence
from typing import Any

from slm_jax.evaluation.section import JudgeConfig, JudgeSettings, Lacking, Section, Sound, Table
from slm_jax.evaluation.transcription import Errors, character_errors, word_errors
from slm_jax.judges.asking import heard, items_of, replies_to, require_kinds_of_parts, text_of, turned
from slm_jax.training.held_out import waveform
from slm_jax.training.stages import StageContext

WORST = 5
"""Transcripts that are shown."""


class TranscriptionJudge(JudgeConfig):
    """Does the system write down what is said?

    It hears each held-out item as a whole and, where it reads text, `prompt` after it. `kinds` of items, None for those
    that the corpus gives unless asked otherwise. `language`: whose spelling is normalised before words are compared.
    """

    name: str = "transcription"
    kinds: tuple[str, ...] | None = None
    prompt: str = "Write down what is said."
    language: str = "en"

    def judge(self, system: Any, context: StageContext, settings: JudgeSettings) -> Section:
        require_kinds_of_parts(system, reads=("speech",), writes=("text",))
        items = items_of(context, self.kinds, settings.utterances, lambda item: bool(item["text"].strip()))
        if not items:
            raise Lacking("no held-out utterance has a text")
        words = (self.prompt,) if "text" in system.reads else ()
        asked = [heard(item, context, system.rate_hz, *words) for item in items]
        said = [text_of(reply) for reply in replies_to(system, asked)]
        true = [item["text"] for item in items]
        worst = worst_first(true, said, self.language)[:WORST]
        rows = [[items[i]["id"], rate, true[i], said[i]] for i, rate in worst]
        first = waveform(items[worst[0][0]], context, context.corpus.rate_hz)
        sound = Sound(f"{self.name}_worst", first, context.corpus.rate_hz, "The utterance with most word errors")
        figures = transcription_figures(true, said, self.language)
        tables = (_summary(figures), Table(["", "WER", "reference", "written"], rows, "Most word errors"))
        return Section("Transcription", in_words(figures), {self.name: figures}, tables, (sound,))


def transcription_figures(true: Sequence[str], said: Sequence[str], language: str = "en") -> dict[str, Any]:
    """Errors over all utterances; `shuffled_wer`: every transcript against the next reference, None for only one."""
    by_words, by_characters = word_errors(true, said, language), character_errors(true, said, language)
    shuffled = word_errors(turned(true), said, language).rate if len(true) > 1 else None
    return {
        "wer": by_words.rate,
        "cer": by_characters.rate,
        "shuffled_wer": shuffled,
        "utterances": len(true),
        "empty": sum(not text.strip() for text in said),
        "words": _counts(by_words),
        "characters": _counts(by_characters),
    }


def worst_first(true: Sequence[str], said: Sequence[str], language: str = "en") -> list[tuple[int, float | None]]:
    """Places of utterances with their word error rates, the highest first; None, where there was no word, last."""
    rates = [word_errors([one], [other], language).rate for one, other in zip(true, said, strict=True)]
    return sorted(enumerate(rates), key=lambda pair: (pair[1] is None, -(pair[1] or 0.0)))


def in_words(figures: dict[str, Any]) -> str:
    """What was counted."""
    return (
        f"{figures['utterances']} held-out utterances, after the normaliser of Whisper; {figures['empty']} transcripts "
        "were empty and count as all words missed. Shuffled: the same transcripts against texts of others, which is "
        "what one gets who does not listen."
    )


def _counts(errors: Errors) -> dict[str, int]:
    return dataclasses.asdict(errors)


def _summary(figures: dict[str, Any]) -> Table:
    """Words and characters in a row each."""
    header = ["", "error rate", "shuffled", "substituted", "missed", "added", "in the references"]
    rates = {"words": ("wer", "shuffled_wer"), "characters": ("cer", "")}
    rows = [
        [name, figures[rate], figures.get(shuffled), *figures[name].values()]
        for name, (rate, shuffled) in rates.items()
    ]
    return Table(header, rows)
