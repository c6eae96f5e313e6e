"""What Whisper's decoder is told about a task: specifiers, or an instruction in words (UniverSLU, Arora et al. 2024).

    <|en|> <|er|> <|iemocap|>      ->  <|startoftranscript|> <|en|> <|er|> <|iemocap|> <|notimestamps|>
    Is it angry, happy or sad?     ->  <|startoftranscript|> <|en|> Is it angry, happy or sad? <|notimestamps|>

The loss counts what comes after it: the labels in words, and the end.
"""

import re
from collections.abc import Sequence
from functools import cached_property

from slm_jax.core.errors import nearest, require
from slm_jax.text.whisper_tokens import TASKS, PromptTokens

MARK = re.compile(r"<\|[^|\s]+\|>")


class TaskPrompts:
    """Prefixes out of what is asked. `specifiers`: marks of tasks and data sets, whose ids follow those of `tokens`.

    `<|transcribe|>` and `<|translate|>`, which Whisper has, are specifiers too. A language mark may stand before
    anything that is asked; without one it is English where the model knows that. Raises `UserError` for specifiers that
    are none, or are there twice or already.
    """

    def __init__(self, tokens: PromptTokens, specifiers: tuple[str, ...] = ()) -> None:
        self.tokens, self.specifiers = tokens, specifiers
        marks = [*self.languages, *(f"<|{task}|>" for task in TASKS), *specifiers]
        for mark in specifiers:
            require(bool(MARK.fullmatch(mark)), "specifier", mark, "is written <|name|>")
            require(marks.count(mark) == 1, "specifier", mark, "is there already")

    @property
    def size(self) -> int:
        """Ids in use, the specifiers' among them."""
        return self.tokens.tokenizer.size + len(self.specifiers)

    @cached_property
    def languages(self) -> dict[str, int]:
        """Mark of a language -> id."""
        return {f"<|{name}|>": number for name, number in self.tokens.languages.items()}

    @cached_property
    def tasks(self) -> dict[str, int]:
        """Specifier -> id; without Whisper's own where a model knows English only."""
        own = {name: self.tokens.tokenizer.special(name) for name in (f"<|{task}|>" for task in TASKS)}
        first = self.tokens.tokenizer.size
        return {**(own if self.languages else {}), **{name: first + i for i, name in enumerate(self.specifiers)}}

    @cached_property
    def never(self) -> tuple[int, ...]:
        """Ids that stand in prompts only. What Whisper keeps back besides, such as a colon, labels may hold."""
        return (self.tokens.start, self.tokens.no_times, *self.languages.values(), *self.tasks.values())

    def prefix(self, asked: str) -> list[int]:
        """What the decoder reads before the answer.

        `asked`: specifiers, or an instruction, either after a language mark or not; nothing asks for the words. Raises
        `UserError` for an unknown specifier, and for one among other words.
        """
        words = asked.split()
        language = words.pop(0) if words and words[0] in self.languages else None
        marks = [word for word in words if MARK.fullmatch(word)]
        for mark in marks:
            rule = f"a specifier is one of {', '.join(self.tasks)}{nearest(mark, self.tasks)}"
            require(mark in self.tasks, "asked", mark, rule)
        require(len(marks) in (0, len(words)), "asked", asked, "specifiers stand alone, without other words")
        if marks:
            told = [self.tasks[mark] for mark in marks]
        elif words:
            told = self.tokens.tokenizer.encode(asked.strip().removeprefix(language or "").strip())
        else:
            told = [self.tasks["<|transcribe|>"]] if self.languages else []
        return [self.tokens.start, *self._language(language), *told, self.tokens.no_times]

    def answer(self, text: str) -> list[int]:
        """What is learnt: the words, and the end."""
        return [*self.tokens.tokenizer.encode(text), self.tokens.end]

    def decode(self, ids: Sequence[int]) -> str:
        """The words among `ids`."""
        return self.tokens.decode([number for number in ids if number < self.tokens.tokenizer.size])

    def _language(self, mark: str | None) -> list[int]:
        if not self.languages:
            return []
        return [self.languages[mark or f"<|{self.tokens.any_language}|>"]]
