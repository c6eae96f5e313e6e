"""Codes of a corpus: what a codec makes of every recording, as the tokens that language models learn."""

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import jax
import numpy as np

from slm_jax.assemblies.codec import CodecConfig
from slm_jax.assemblies.codec_tokenizer import CodecTokenizer
from slm_jax.core.config import Config
from slm_jax.core.errors import require
from slm_jax.core.part_source import STAGE, PartSource
from slm_jax.core.token_spec import TokenSpec
from slm_jax.data.channels import Channel
from slm_jax.data.corpus import SPLITS, CorpusConfig
from slm_jax.data.lines import LineConfig
from slm_jax.data.passes import one_behind
from slm_jax.data.shares import this_host, write_shared
from slm_jax.interop.parts import source_config
from slm_jax.parallel.hosts import on_first_host
from slm_jax.token_compression.dedup import dedup_row
from slm_jax.training.feature_passes import spread
from slm_jax.training.gradient_stage import described
from slm_jax.training.part_record import RECORD, recorded_configs
from slm_jax.training.parts import check_parts, load_frozen, open_parts
from slm_jax.training.pre.codec import CodecStageConfig
from slm_jax.training.run_codec import stage_codec
from slm_jax.training.run_folder import StageFolder
from slm_jax.training.stages import RunConfig, StageContext, require_form
from slm_jax.training.token_stage import UNITS, TokenStageConfig, write_spec

PART = "frozen/codec"


class CodecTokensConfig(TokenStageConfig):
    """The first `books` codebooks (None: all) of a codec, frame by frame, a column for each.

    `source`: `stage:NAME` of this run, a folder with weights, or `hub:NAME`, whose codec is a part of the stage
    (`parts.json`); `expect` states what it is where the folder need not be there yet. One book alone also has `runs`
    without repetitions and their `durations`. `kinds`: of the corpus' items; None: those that it gives unless asked
    otherwise. Of a corpus of two channels each is encoded apart: columns of the second follow those of the first.
    `line`: through which the first, which is the user's, is heard.
    """

    source: str
    books: int | None = None
    expect: CodecConfig | None = None
    line: LineConfig | None = None
    kinds: tuple[str, ...] | None = None

    @property
    def needs(self) -> tuple[str, ...]:
        return (self._stage,) if self._stage is not None else ()

    def check_outside(self, begun: StageFolder | None) -> None:
        check_parts(self._parts, begun)

    def check_corpus(self, corpus: CorpusConfig) -> None:
        if self._stage is None:
            require_form(self.name, corpus, self._outside().rate_hz, "rate of the codec", channels=2)
        require(corpus.channels <= 2, "channels of the corpus", corpus.channels, f"stage {self.name!r} reads two")
        two = self.line is None or corpus.channels == 2
        require(two, "line", self.line, "it is there for the side that is heard, in a corpus of two channels")

    def items(self, context: StageContext, split: str) -> Any:
        return context.source(split, self.kinds)

    def found_spec(self, context: StageContext) -> TokenSpec:
        return self._spec(self.tokenizer(context).config, context.corpus)

    def planned_spec(self, run: RunConfig) -> TokenSpec:
        if self._stage is None:
            return self._spec(self._outside(), run.corpus)
        return self._spec(described(run, self._stage, CodecStageConfig).planned_model(run), run.corpus)

    def tokenizer(self, context: StageContext) -> CodecTokenizer:
        if self._stage is None:
            place = context.run.stage(self.name)
            config, params = recorded_configs(place)[PART], load_frozen(context.run, self.name)["frozen"]["codec"]
            return CodecTokenizer(self._codec(config), {"params": params}, self.books)
        return stage_codec(context.finished(self._stage), self.books)

    def run(self, folder: StageFolder, context: StageContext) -> Sequence[str]:
        if self._parts:
            open_parts(self._parts, folder)
        tokenizer = self.tokenizer(context)
        spec, codec = self._spec(tokenizer.config, context.corpus), tokenizer.config.make()
        encode = partial(jax.jit(partial(codec.apply, books=self.books, method="encode")), tokenizer.variables)
        lengths = None if self.kinds is None else context.lengths_of(self.kinds)
        for split in SPLITS:
            source = self.items(context, split)
            made = [
                spread(encode, heard, context, f"{self.name} {split}{words}", ("id",), **this_host(), lengths=lengths)
                for heard, words in self._sides(source, context.corpus)
            ]
            write_shared(self.records(folder, split), rows_of(made, spec), len(source))
        written = [UNITS, on_first_host(lambda: write_spec(folder, spec))]
        return [*written, RECORD] if self._parts else written

    @property
    def _stage(self) -> str | None:
        return self.source.removeprefix(STAGE) if self.source.startswith(STAGE) else None

    @property
    def _parts(self) -> tuple[PartSource, ...]:
        return () if self._stage is not None else (PartSource(path=PART, source=self.source, expect=self.expect),)

    def _outside(self) -> CodecConfig:
        """The config of a codec that no stage of the run trains."""
        return self._codec(self.expect or source_config(self.source))

    def _codec(self, config: Config) -> CodecConfig:
        require(isinstance(config, CodecConfig), f"source of stage {self.name!r}", self.source, "it holds no codec")
        assert isinstance(config, CodecConfig)  # for the type checker
        return config

    def _sides(self, source: Any, corpus: CorpusConfig) -> list[tuple[Any, str]]:
        """Each channel as a source, and what to call it."""
        if corpus.channels == 1:
            return [(source, "")]
        lines = [self.line, *[None] * (corpus.channels - 1)]
        return [(Channel(source, k, line, corpus.rate_hz), f" channel {k}") for k, line in enumerate(lines)]

    def _spec(self, config: CodecConfig, corpus: CorpusConfig) -> TokenSpec:
        """What is written."""
        spec = config.spec(self.books)
        if corpus.channels > 1:
            return of_channels(spec, corpus.channels)
        return spec if len(spec.codebooks) > 1 else spec.replace(runs=("runs",), durations="durations")


def of_channels(spec: TokenSpec, channels: int) -> TokenSpec:
    """The same books for each channel, those of the first one under their own names."""
    suffixes = ["", *(f"_of_{channel}" for channel in range(1, channels))]
    books = tuple(book.replace(name=book.name + suffix) for suffix in suffixes for book in spec.codebooks)
    return spec.replace(codebooks=books, columns=tuple(book.name for book in books))


def rows_of(sides: list[Any], spec: TokenSpec) -> Iterator[tuple[int, dict[str, Any]]]:
    """Rows of the table of codes with their places, in the order in which they come; a pass for each channel."""
    for batches in one_behind(zip(*sides, strict=True)):
        rows, codes = batches[0][0], [found for _, found in batches]
        ids = np.concatenate([np.asarray(found.ids, np.int32) for found in codes], axis=2)
        counts = np.asarray(codes[0].mask.sum(-1))
        for i in np.flatnonzero(rows["valid"]):
            row = {"id": rows["id"][i], **dict(zip(spec.columns, ids[i, : counts[i]].T, strict=True))}
            if spec.runs is not None:
                runs, durations = dedup_row(row[spec.columns[0]])
                row |= {spec.runs[0]: runs.astype(np.int32), str(spec.durations): durations.astype(np.int32)}
            yield int(rows["index"][i]), row
