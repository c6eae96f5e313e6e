"""What Whisper's decoder is told before the words, and what it must not say.

Read from a model's own files, or made for a model of one's own.
"""

import json
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from slm_jax.core.config import Config
from slm_jax.core.errors import UserError, nearest, require
from slm_jax.text.marked_tokens import MarkedTokens, SpecialsConfig
from slm_jax.text.tokenizers import TokenizerFileConfig

TASKS = ("transcribe", "translate")
START, END, NO_TIMES = "<|startoftranscript|>", "<|endoftext|>", "<|notimestamps|>"
FILES = ("tokenizer.json", "generation_config.json")
"""What of a model folder tells its tokens."""


class PromptTokens:
    """The ids of `tokenizer` in Whisper's prompts.

    `settings`: as in a `generation_config.json`, of which count `lang_to_id`, `suppress_tokens` and
    `begin_suppress_tokens`. Raises `UserError` for a tokenizer that lacks the specials of Whisper.
    """

    def __init__(self, tokenizer: MarkedTokens, settings: Mapping[str, Any]) -> None:
        self.tokenizer, self._settings = tokenizer, settings
        self.start, self.end, self.no_times = (tokenizer.special(name) for name in (START, END, NO_TIMES))

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


class WhisperTokens(PromptTokens):
    """The tokens of a model folder: its `tokenizer.json` and `generation_config.json`.

    Raises `UserError` when one of them is missing or is not that of a Whisper model.
    """

    def __init__(self, folder: str | Path) -> None:
        tokenizer, settings = (Path(folder) / name for name in FILES)
        super().__init__(TokenizerFileConfig(path=str(tokenizer)).make(), _settings(settings))


class WhisperFolderConfig(Config):
    """Those of a folder, by a config. `size`: how many ids there are, which is known before the folder is there."""

    folder: str
    size: int = 51_865

    def make(self) -> WhisperTokens:
        """The tokens; raises `UserError` when there are more or fewer than `size`."""
        made = WhisperTokens(self.folder)
        require(
            made.tokenizer.size == self.size,
            f"size of the tokens in {self.folder}",
            self.size,
            f"there are {made.tokenizer.size}",
        )
        return made


class PlainPromptsConfig(Config):
    """Whisper's specials, with these `languages`, from id 0, and the ids of a plain tokenizer after them.

    No other special is ever said, and an answer does not begin with its end.
    """

    languages: tuple[str, ...] = ("en",)
    plain: SpecialsConfig = SpecialsConfig(specials=())

    def __post_init__(self) -> None:
        require(bool(self.languages), "languages", self.languages, "at least one")

    @property
    def size(self) -> int:
        """How many ids there are."""
        return self._marked.make().size

    def make(self) -> PromptTokens:
        """The tokens."""
        made = self._marked.make()
        names = {f"<|{language}|>": made.special(f"<|{language}|>") for language in self.languages}
        unsaid = [made.special(name) for name in self._marked.specials if name != END]
        return PromptTokens(made, {"lang_to_id": names, "suppress_tokens": unsaid, "begin_suppress_tokens": [0]})

    @property
    def _marked(self) -> SpecialsConfig:
        names = (f"<|{name}|>" for name in (*self.languages, *TASKS))
        return self.plain.replace(specials=(END, START, *names, NO_TIMES))


def _settings(path: Path) -> Mapping[str, Any]:
    rule = "it says which languages a model knows and which tokens it must not say"
    require(path.is_file(), "generation_config.json", f"absent from {path.parent}", rule)
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{path} is no JSON: {error}") from None
    require(isinstance(found, dict), str(path), type(found).__name__, "must be a table of fields")
    return found
