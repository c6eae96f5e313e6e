"""Byte-pair encoding over the units of a stage: merges learnt on the training split, the tokens of the whole corpus."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from slm_jax.assemblies.phonetic_tokenizer import PhoneticTokenizer
from slm_jax.assemblies.unit_sequences import BytePairTokenizer, byte_pair_spec, byte_pairs
from slm_jax.checkpoints.integrity import write_json
from slm_jax.core.errors import require
from slm_jax.core.token_spec import TokenSpec
from slm_jax.data.corpus import SPLITS
from slm_jax.data.records import RecordSource, write_records
from slm_jax.parallel.hosts import on_first_host
from slm_jax.token_compression.bpe import UnitBPE
from slm_jax.token_compression.dedup import repeat_row
from slm_jax.training.run_folder import StageFolder
from slm_jax.training.stages import RunConfig, StageContext
from slm_jax.training.token_stage import UNITS, TokenStageConfig, planned_spec, token_stage, write_spec

MERGES, FIGURES = "merges.json", "compression.json"


class UnitBPEConfig(TokenStageConfig):
    """Merges runs of the units of stage `units` until there are `vocabulary` tokens or no pair occurs twice.

    `longest`: units (runs) that one token may stand for, None for any number. Leaves `merges.json`; for every split a
    table `units/<split>` with `id`, `units` (the token of each frame), `runs` (the tokens) and `durations` (frames of
    each token); and `compression.json`, how many frames, runs and tokens the training split has.
    """

    units: str
    vocabulary: int
    longest: int | None = None

    def __post_init__(self) -> None:
        require(self.vocabulary >= 1, "vocabulary", self.vocabulary, "tokens, as many as there are units or more")
        require(self.longest is None or self.longest >= 2, "longest", self.longest, "at least 2 units, or None")

    @property
    def needs(self) -> tuple[str, ...]:
        return (self.units,)

    def found_spec(self, context: StageContext) -> TokenSpec:
        return self.tokenizer(context).spec

    def planned_spec(self, run: RunConfig) -> TokenSpec:
        """As if all merges were found; a small corpus gives fewer."""
        return byte_pair_spec(self.vocabulary, planned_spec(run, self.units).hop)

    def run(self, folder: StageFolder, context: StageContext) -> Sequence[str]:
        return on_first_host(lambda: self._made(folder, context))

    def tokenizer(self, context: StageContext) -> BytePairTokenizer:
        """The tokenizer of this stage once it is done."""
        folder = context.finished(self.name)
        return BytePairTokenizer(self._phonetic(context), UnitBPE.load(folder.path / MERGES))

    def _made(self, folder: StageFolder, context: StageContext) -> list[str]:
        stage, source = token_stage(context, self.units), context.finished(self.units)
        spec = stage.spec(context)
        rule = "byte pairs are of a tokenizer that keeps its units without repetitions too"
        require(spec.runs is not None, f"stage {self.units!r}", spec.describe(), rule)
        assert spec.runs is not None and spec.durations is not None  # for the type checker
        columns = spec.runs[0], spec.durations
        tables = {split: RecordSource(stage.records(source, split)) for split in SPLITS}
        train = tables["train"]
        rows = (train[place][columns[0]] for place in range(len(train)))
        bpe = UnitBPE.train(rows, units=spec.units, vocabulary=self.vocabulary, longest=self.longest)
        bpe.save(folder.path / MERGES)
        for split, table in tables.items():
            write_records(self.records(folder, split), _rows(bpe, table, *columns))
        written = RecordSource(self.records(folder, "train"))
        counts = {
            "frames": written.lengths("units"),
            "runs": train.lengths(columns[0]),
            "tokens": written.lengths("runs"),
        }
        write_json(folder.path / FIGURES, {name: int(each.sum()) for name, each in counts.items()})
        return [MERGES, UNITS, FIGURES, write_spec(folder, byte_pair_spec(len(bpe), spec.hop))]

    def _phonetic(self, context: StageContext) -> PhoneticTokenizer:
        found = token_stage(context, self.units).tokenizer(context)
        require(isinstance(found, PhoneticTokenizer), f"stage {self.units!r}", type(found).__name__, "must make units")
        assert isinstance(found, PhoneticTokenizer)  # for the type checker
        return found


def _rows(bpe: UnitBPE, table: RecordSource, runs: str, durations: str) -> Iterator[dict[str, Any]]:
    """The rows of the tokens' table."""
    for place in range(len(table)):
        row = table[place]
        tokens, frames = byte_pairs(bpe, np.asarray(row[runs]), np.asarray(row[durations]))
        yield {"id": row["id"], "units": repeat_row(tokens, frames), "runs": tokens, "durations": frames}
