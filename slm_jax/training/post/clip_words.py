"""What a recogniser writes down of the clips of a stage, kept in a table: what stands beside their vectors (DeSTA)."""

import dataclasses
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any, Protocol, runtime_checkable

import jax
import numpy as np

from slm_jax.assemblies.whisper import WhisperConfig
from slm_jax.checkpoints.lazy import load_part
from slm_jax.core.config import Config, content_hash
from slm_jax.core.errors import require
from slm_jax.core.part_source import PartSource
from slm_jax.core.trees import together
from slm_jax.data.examples.speech_prompts import CLIP_WORDS, SpeechPromptExample
from slm_jax.data.joined import Joined, Subset
from slm_jax.data.progress import tracked
from slm_jax.data.records import INDEX_FILE, RecordSource
from slm_jax.data.shares import share_of, write_shared
from slm_jax.evaluation.ctc import CTCReader
from slm_jax.generation.whisper_words import Transcription, WhisperWriter
from slm_jax.parallel.hosts import on_first_host
from slm_jax.parallel.mesh import MeshConfig
from slm_jax.parallel.sharding import shardings_for, unbox
from slm_jax.text.whisper_tokens import WhisperTokens
from slm_jax.training.gradient_stage import trained
from slm_jax.training.part_record import hash_of
from slm_jax.training.parts import load_frozen, located, open_part
from slm_jax.training.post.clip_features import Clips
from slm_jax.training.pre.ctc import CTCStageConfig
from slm_jax.training.stages import StageContext

HEARD = "heard"
"""Folder of a run with the tables, which its stages share."""
ROWS = 32
PATH = "frozen/writer"


@runtime_checkable
class Writer(Protocol):
    """Whatever writes down clips `[N]` at 16 kHz."""

    def texts(self, clips: Sequence[np.ndarray]) -> list[str]: ...


class ClipWordsConfig(Config):
    """The words of each clip as `source` writes them down: a Whisper (a folder, `hub:NAME`), or `stage:NAME`, a stage
    of CTC of this run, which is read greedily.

    `transcription`: how Whisper finds them; `dtype`: that of its weights and sums.
    """

    source: str
    transcription: Transcription = Transcription()
    dtype: str = "float32"

    @property
    def stage(self) -> str | None:
        """The stage of CTC; None where it is a Whisper."""
        return self._part.stage

    def check(self, context: StageContext | None = None) -> None:
        """Raise `UserError` where there is no such model; nothing is read."""
        if self.stage is None:
            located(self._part, None if context is None else context.run)

    def writer(self, context: StageContext) -> Writer:
        """What writes down clips."""
        return self._whisper(context) if self.stage is None else self._letters(context, self.stage)

    def read(self, source: Any, example: SpeechPromptExample, context: StageContext) -> Joined:
        """The items of `source` with `heard`, what is written down of each of their clips.

        The table is written unless it is there; stages whose tasks hear the same clips share it, hosts share the work.
        """
        clips = Clips(source, example)
        key = content_hash([clips.signature, self.to_json(), self.fingerprint(context)])
        table = context.run.path / HEARD / key[:16]
        if not on_first_host(lambda: (table / INDEX_FILE).is_file()):
            own = share_of(len(source))
            rows = _rows(Clips(Subset(source, own), example), self.writer(context), context.progress)
            write_shared(table, zip(own, rows, strict=True), len(source))
        return Joined(source, RecordSource(table))

    def fingerprint(self, context: StageContext) -> str:
        """The hash of what writes."""
        if self.stage is not None:
            return context.finished(self.stage).artifact_hash()
        return hash_of(open_part(self._part, context.run))

    @property
    def _part(self) -> PartSource:
        return PartSource(path=PATH, source=self.source, dtype=self.dtype)

    def _letters(self, context: StageContext, stage: str) -> "Letters":
        return Letters(ctc_reader(context, stage))

    def _whisper(self, context: StageContext) -> WhisperWriter:
        part = open_part(self._part, context.run)
        config = part.config
        require(isinstance(config, WhisperConfig), "source", self.source, "holds no Whisper model")
        assert isinstance(config, WhisperConfig)  # for the type checker
        inner = {name: getattr(config, name).replace(dtype=self.dtype) for name in ("encoder", "decoder")}
        mesh = MeshConfig().make(jax.local_devices()[:1])
        params = load_part(unbox(part.params), shardings_for(part.params, mesh, "ddp"))
        tokens = WhisperTokens(located(self._part, context.run))
        return WhisperWriter(config.replace(**inner), params, tokens, self.transcription)


@dataclasses.dataclass(frozen=True)
class Letters:
    """A CTC reader of clips."""

    reader: CTCReader

    def texts(self, clips: Sequence[np.ndarray]) -> list[str]:
        """What is read of each; raises `UserError` for one that is longer than what the reader learnt from."""
        longest, most = max(map(len, clips), default=0), self.reader.example.samples
        require(longest <= most, "samples of a clip", longest, f"the stage of CTC reads up to {most}")
        return self.reader.texts([{"samples": clip, "text": ""} for clip in clips])


def ctc_reader(context: StageContext, stage: str) -> CTCReader:
    """What a finished stage of CTC reads with; raises `UserError` for a stage of another kind."""
    config, variables = trained(context.finished(stage))
    known = isinstance(config, CTCStageConfig)
    require(known, f"stage {stage!r}", type(config).__name__, "must be a stage of CTC")
    assert isinstance(config, CTCStageConfig)  # for the type checker
    whole = together(variables, load_frozen(context.run, stage))
    return CTCReader(config.model(), whole, config.example, config.batches.batch)


def _rows(clips: Clips, writer: Writer, show: bool) -> Iterator[dict[str, Any]]:
    """A row for every item, in order: clips of like lengths are read together."""
    samples = np.array([count for own in clips.lengths for count in own], np.int64)
    order, found = np.argsort(samples, kind="stable"), [""] * len(samples)

    def groups() -> Iterator[dict[str, np.ndarray]]:
        for start in range(0, len(order), ROWS):
            chosen = order[start : start + ROWS]
            texts = writer.texts([clips[int(place)]["samples"] for place in chosen])
            for place, text in zip(chosen, texts, strict=True):
                found[int(place)] = text.strip()
            yield {"valid": np.ones(len(chosen), bool)}

    for _ in tracked(groups(), len(order), "words of clips", show):
        pass
    rest = iter(found)
    for place, lengths in enumerate(clips.lengths):
        yield {"id": clips.source[place]["id"], CLIP_WORDS: list(islice(rest, len(lengths)))}
