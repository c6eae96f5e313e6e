"""Units with durations and pitch: fit the classes of log F0 on the training speech, then write all streams."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from slm_jax.assemblies.prosodic_tokenizer import (
    Heard,
    ProsodicTokenizer,
    ProsodyConfig,
    Voice,
    heard_in,
    normalised,
    quantile_edges,
    voice_of,
)
from slm_jax.core.errors import require
from slm_jax.core.token_spec import TokenSpec
from slm_jax.data.corpus import SPLITS, CorpusConfig
from slm_jax.data.joined import Joined
from slm_jax.data.records import RecordSource
from slm_jax.data.shares import share_of, write_shared
from slm_jax.parallel.hosts import on_first_host
from slm_jax.training.feature_passes import Clustered, f0_tracks
from slm_jax.training.run_folder import StageFolder
from slm_jax.training.stages import RunConfig, StageContext, require_form
from slm_jax.training.token_stage import UNITS, TokenStageConfig, planned_spec, token_stage, write_spec

TOKENIZER, F0 = "tokenizer", "f0"
Rows = Iterator[tuple[int, dict[str, Any]]]


class ProsodyStageConfig(TokenStageConfig):
    """Adds durations and pitch to the units of stage `units`, as `prosody` says.

    Leaves `tokenizer/` (classes, and mean and standard deviation of log F0 per speaker), `f0/<split>` (mean F0 of
    every run in Hz) and for every split a table `units/<split>` with all streams. A speaker of whom nothing was trained
    on is normalised by the utterance itself.
    """

    units: str
    prosody: ProsodyConfig = ProsodyConfig()

    @property
    def needs(self) -> tuple[str, ...]:
        return (self.units,)

    def check_corpus(self, corpus: CorpusConfig) -> None:
        require_form(self.name, corpus, self.prosody.pitch.rate_hz, "prosody.pitch.rate_hz")

    def found_spec(self, context: StageContext) -> TokenSpec:
        return self.prosody.spec(token_stage(context, self.units).spec(context))

    def planned_spec(self, run: RunConfig) -> TokenSpec:
        return self.prosody.spec(planned_spec(run, self.units))

    def tokenizer(self, context: StageContext) -> ProsodicTokenizer:
        return self._tokenizer(context.finished(self.name), context)

    def clustered(self, context: StageContext) -> Clustered | None:
        return token_stage(context, self.units).clustered(context)

    def run(self, folder: StageFolder, context: StageContext) -> Sequence[str]:
        sources = {split: self._joined(split, context) for split in SPLITS}
        for split, source in sources.items():
            write_shared(folder.path / F0 / split, self._tracks(source, split, context), len(source))
        tables = {split: RecordSource(folder.path / F0 / split) for split in SPLITS}
        on_first_host(lambda: self._fit(folder, tables["train"]))
        tokenizer = self._tokenizer(folder, context)
        for split in SPLITS:
            rows = self._rows(tokenizer, self._units(split, context), tables[split])
            write_shared(self.records(folder, split), rows, len(tables[split]))
        return [TOKENIZER, F0, UNITS, on_first_host(lambda: write_spec(folder, tokenizer.spec))]

    def _tokenizer(self, folder: StageFolder, context: StageContext) -> ProsodicTokenizer:
        units = token_stage(context, self.units).tokenizer(context)
        return ProsodicTokenizer.load(folder.path / TOKENIZER, units)

    def _units(self, split: str, context: StageContext) -> RecordSource:
        return RecordSource(token_stage(context, self.units).records(context.finished(self.units), split))

    def _joined(self, split: str, context: StageContext) -> Joined:
        return Joined(context.source(split), self._units(split, context))

    def _tracks(self, source: Joined, split: str, context: StageContext) -> Rows:
        """Mean F0 of the runs of this host's share, in the order in which the utterances come."""
        spec = token_stage(context, self.units).spec(context)
        per_frame, column = self.prosody.tracks_per_frame(spec), spec.columns[0]
        fields = ("id", "speaker", column)
        for place, row, f0_hz in f0_tracks(self.prosody.pitch, source, context, f"{self.name} {split}", fields):
            heard = heard_in(f0_hz, row.pop(column), per_frame)
            yield place, {**row, "run_f0_hz": heard.f0_hz, "sums": heard.sums}

    def _fit(self, folder: StageFolder, table: RecordSource) -> None:
        rows = [table[i] for i in range(len(table))]
        voices = fitted_voices(rows)
        rule = "the training speech must hold some voiced speech"
        require(bool(voices), f"stage {self.name}: voiced frames", 0, rule)
        voiced = [
            normalised(row["run_f0_hz"][row["run_f0_hz"] > 0], voices[row["speaker"]], self.prosody.scaled)
            for row in rows
            if row["speaker"] in voices
        ]
        edges = quantile_edges(np.concatenate(voiced), self.prosody.bins)
        ProsodicTokenizer(None, self.prosody, edges, voices).save(folder.path / TOKENIZER)

    def _rows(self, tokenizer: ProsodicTokenizer, units: RecordSource, tracks: RecordSource) -> Rows:
        column = tokenizer.units.spec.columns[0]
        for place in share_of(len(tracks)):
            row = tracks[place]
            heard = Heard(row["run_f0_hz"], row["sums"])
            made = tokenizer.columns(units[place][column], heard, row["speaker"])
            yield place, {"id": row["id"], "speaker": row["speaker"], **made}


def fitted_voices(rows: Sequence[dict[str, Any]]) -> dict[str, Voice]:
    """The voice of every speaker who says something voiced."""
    sums: dict[str, np.ndarray] = {}
    for row in rows:
        sums[row["speaker"]] = sums.get(row["speaker"], 0) + row["sums"]
    return {name: voice_of(sums[name]) for name in sorted(sums) if sums[name][0] > 0}
