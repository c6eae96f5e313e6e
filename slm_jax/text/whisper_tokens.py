"""What Whisper's decoder is told before the words, and what it must not say: read from a model's own files."""

import json
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from slm_jax.core.errors import UserError, nearest, require
from slm_jax.text.tokenizers import TokenizerFile, TokenizerFileConfig

TASKS = ("transcribe", "translate")
START, END, NO_TIMES = "<|startoftranscript|>", "<|endoftext|>", "<|notimestamps|>"


class WhisperTokens:
    """The tokens of a model folder: its `tokenizer.json` and `generation_config.json`.

    Raises `UserError` when one of them is missing or is not that of a Whisper model.
    """

    def __init__(self, folder: str | Path) -> None:
        folder = Path(folder)
        self.tokenizer: TokenizerFile = TokenizerFileConfig(path=str(folder / "tokenizer.json")).make()
        self.start, self.end, self.no_times = (self.tokenizer.special(name) for name in (START, END, NO_TIMES))
        self._settings = _settings(folder / "generation_config.json")

    @cached_property
    def languages(self) -> dict[str, int]:
        """Language code (`en`) -> id; empty for a model that knows English only."""
        known = self._settings.get("lang_to_id") or {}
        return {name.strip("<|>"): int(number) for name, number in known.items()}

    @property
    def any_language(self) -> str:
        """A language that the model knows: English where it can be."""
        return "en" if "en" in self.languages else next(iter(self.languages), "en")

    @property
    def never(self) -> tuple[int, ...]:
        """Ids that are not to be said: sounds that are no speech, and what only prompts hold."""
        return tuple(self._settings.get("suppress_tokens") or ())

    @property
    def not_first(self) -> tuple[int, ...]:
        """Ids that are not to be said first: a blank, the end."""
        return tuple(self._settings.get("begin_suppress_tokens") or ())

    def prefix(self, language: str = "en", task: str = "transcribe") -> list[int]:
        """What the decoder reads before the words, without times.

        Raises `UserError` for an unknown language or task, and for others than English ones of an English model.
        """
        require(task in TASKS, "task", task, f"must be one of {', '.join(TASKS)}")
        if not self.languages:
            only = language == "en" and task == "transcribe"
            require(only, "language, task", (language, task), "this model writes down English and nothing else")
            return [self.start, self.no_times]
        known = self.languages
        require(language in known, "language", language, f"must be one of {', '.join(known)}{nearest(language, known)}")
        return [self.start, known[language], self.tokenizer.special(f"<|{task}|>"), self.no_times]

    def language_of(self, number: int) -> str:
        """The code of a language's id."""
        for name, known in self.languages.items():
            if known == number:
                return name
        raise UserError(f"token {number} is no language of this model")

    def decode(self, ids: Sequence[int]) -> str:
        """The words, without specials."""
        return self.tokenizer.decode(list(ids)).strip()


def _settings(path: Path) -> Mapping[str, Any]:
    rule = "it says which languages a model knows and which tokens it must not say"
    require(path.is_file(), "generation_config.json", f"absent from {path.parent}", rule)
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{path} is no JSON: {error}") from None
    require(isinstance(found, dict), str(path), type(found).__name__, "must be a table of fields")
    return found
