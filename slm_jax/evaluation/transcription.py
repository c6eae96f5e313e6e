"""Word and character errors of transcripts, after the normaliser of Whisper (Radford et al. 2022, appendix C).

A rate is errors over words (characters) of all references together, so that long utterances weigh as much as they are
long; nothing said where something should have been is all deletions. References that are empty once normalised are
counted apart: what is heard in them are insertions.
"""

import dataclasses
from collections.abc import Callable, Sequence
from functools import cache

import jiwer

from slm_jax.core.errors import require


@dataclasses.dataclass(frozen=True)
class Errors:
    """Substitutions, deletions and insertions against `reference` words or characters."""

    substitutions: int
    deletions: int
    insertions: int
    reference: int

    @property
    def rate(self) -> float | None:
        """Errors per word or character; None where there was nothing to get wrong."""
        wrong = self.substitutions + self.deletions + self.insertions
        return wrong / self.reference if self.reference else None


def normaliser(language: str | None = "en") -> Callable[[str], str]:
    """Whisper's normaliser: spelling, numbers and contractions for English, letters and case for other languages.

    None leaves texts as they are.
    """
    if language is None:
        return str
    return _english() if language == "en" else _basic()


def word_errors(references: Sequence[str], heard: Sequence[str], language: str | None = "en") -> Errors:
    """Errors in words; raises `UserError` when there are not as many transcripts as references."""
    return _errors(references, heard, language, jiwer.process_words)


def character_errors(references: Sequence[str], heard: Sequence[str], language: str | None = "en") -> Errors:
    """Errors in characters, spaces counted."""
    return _errors(references, heard, language, jiwer.process_characters)


def _errors(references: Sequence[str], heard: Sequence[str], language: str | None, process: Callable) -> Errors:
    rule = f"one for each of the {len(references)} references"
    require(len(references) == len(heard), "transcripts", len(heard), rule)
    plain = normaliser(language)
    pairs = [(plain(true), plain(said)) for true, said in zip(references, heard, strict=True)]
    if not pairs:
        return Errors(0, 0, 0, 0)
    found = process(*(list(side) for side in zip(*pairs, strict=True)))
    counted = found.hits + found.substitutions + found.deletions
    return Errors(found.substitutions, found.deletions, found.insertions, counted)


@cache
def _english() -> Callable[[str], str]:
    from whisper_normalizer.english import EnglishTextNormalizer

    return EnglishTextNormalizer()


@cache
def _basic() -> Callable[[str], str]:
    from whisper_normalizer.basic import BasicTextNormalizer

    return BasicTextNormalizer()
