"""Texts spoken: written instructions with their answers become a corpus whose instructions are heard."""

import functools
import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

from slm_jax.core.errors import UserError, require
from slm_jax.core.messages import Conversation, Message, Speech, Text
from slm_jax.data.corpora.conversation_rows import COLUMNS, conversation_row
from slm_jax.data.corpora.settings import RATE_HZ, CorpusConfig
from slm_jax.data.corpora.splits import SPLIT_NAMES, SPLITS, split_of
from slm_jax.data.corpora.task_folder import CORPUS_FILE
from slm_jax.data.shards.work import Left, Row, ShardWork
from slm_jax.pipelines.voices import Said, VoiceConfig, WorldVoiceConfig

ROWS = 8
"""Texts that a voice is given together: the first eight of a shard, the next eight, and so on."""
REASONS = {
    "bad_line": "a line that is no JSON object with a text, or an id that was used before",
    "not_spoken": "the voice cannot say it",
}


class Line(NamedTuple):
    """A text to be spoken, and the written answer where there is one."""

    id: str
    text: str
    answer: str
    split: str


class SpokenShardsConfig(ShardWork):
    """Every text of `texts` (JSON lines) spoken by `voice`, at `rate_hz`.

    A line has `text` (or `instruction`), and where there are any `id`, `answer` (or `output`), `split`. With an answer
    it is an item of kind "instruction", a spoken instruction and its written answer; else one of kind "spoken". Splits
    follow from the id, in the shares of `splits`.
    """

    texts: str
    voice: VoiceConfig = WorldVoiceConfig()
    rate_hz: int = RATE_HZ
    splits: CorpusConfig = CorpusConfig()

    columns: ClassVar[tuple[str, ...]] = COLUMNS
    reasons: ClassVar[Mapping[str, str]] = REASONS

    def check(self) -> None:
        require(Path(self.texts).is_file(), "texts", self.texts, "no such file")

    def inputs(self) -> dict[str, Any]:
        digest = hashlib.sha256(Path(self.texts).read_bytes()).hexdigest()
        return {"texts": digest, "voice": self.voice.fingerprint()}

    def counts(self) -> dict[str, int]:
        return {split: len(_lines(self, split)) for split in SPLITS}

    def rows(self, table: str, places: range) -> Iterator[Row | Left]:
        some = [_lines(self, table)[place] for place in places]
        lines = [line for line in some if isinstance(line, Line)]
        said = iter([one for start in range(0, len(lines), ROWS) for one in self._said(lines[start : start + ROWS])])
        for line in some:
            yield line if isinstance(line, Left) else self._row(line, next(said))

    def extras(self) -> dict[str, Any]:
        return {CORPUS_FILE: {"rate_hz": self.rate_hz}}

    def _said(self, lines: list[Line]) -> list[Said | UserError]:
        return _voice(self.voice)([line.id for line in lines], [line.text for line in lines], self.rate_hz)

    def _row(self, line: Line, said: Said | UserError) -> Row | Left:
        if isinstance(said, UserError):
            return Left(line.id, "not_spoken", str(said))
        asked: Conversation = (Message("user", (Speech(said.samples, self.rate_hz),)),)
        told = (*asked, Message("assistant", (Text(line.answer),))) if line.answer else asked
        kind = "instruction" if line.answer else "spoken"
        return conversation_row(told, self.rate_hz, id=line.id, kind=kind, words=(line.text,), speaker=said.speaker)


@functools.lru_cache(maxsize=2)
def _voice(voice: VoiceConfig) -> Any:
    """The voice, opened once in a process."""
    return voice.make()


@functools.lru_cache(maxsize=6)
def _lines(work: SpokenShardsConfig, split: str) -> list[Line | Left]:
    """What the lines of a split say; lines that say nothing of use are among those for training."""
    found: list[Line | Left] = []
    seen: set[str] = set()
    for number, text in enumerate(Path(work.texts).read_text(encoding="utf-8").splitlines(), start=1):
        line = _line(text, number, work.splits, seen) if text.strip() else None
        if line is not None and (line.split if isinstance(line, Line) else "train") == split:
            found.append(line)
    return found


def _line(text: str, number: int, splits: CorpusConfig, seen: set[str]) -> Line | Left:
    name = f"line {number}"
    try:
        row = json.loads(text)
    except ValueError as error:
        return Left(name, "bad_line", str(error))
    words = (row.get("text") or row.get("instruction")) if isinstance(row, dict) else None
    if not isinstance(words, str) or not words.strip():
        return Left(name, "bad_line", text[:80])
    own, answer = str(row.get("id") or f"text-{number}"), row.get("answer") or row.get("output") or ""
    split = SPLIT_NAMES.get(str(row.get("split") or "").lower()) or split_of(own, splits)
    if own in seen or not isinstance(answer, str):
        return Left(name, "bad_line", f"id {own!r} was used before" if own in seen else f"answer is {answer!r}")
    seen.add(own)
    return Line(own, " ".join(words.split()), answer, split)
