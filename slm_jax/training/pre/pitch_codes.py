"""Pitch codes of a corpus: what a codec of pitch makes of every utterance, as tokens that language models learn."""

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any

import numpy as np

from slm_jax.assemblies.pitch_tokenizer import PitchTokenizer, pitch_spec
from slm_jax.core.token_spec import TokenSpec
from slm_jax.data.corpus import SPLITS
from slm_jax.data.records import RecordSource
from slm_jax.data.shares import share_of, write_shared
from slm_jax.parallel.hosts import on_first_host
from slm_jax.token_compression.dedup import dedup_row
from slm_jax.training.feature_passes import ROWS
from slm_jax.training.gradient_stage import described, trained
from slm_jax.training.pre.pitch import PitchStageConfig
from slm_jax.training.pre.pitch_codec import PitchCodecStageConfig
from slm_jax.training.run_folder import StageFolder
from slm_jax.training.stages import RunConfig, StageContext
from slm_jax.training.token_stage import UNITS, TokenStageConfig, write_spec

Tracks = Iterator[tuple[int, dict[str, Any]]]


class PitchCodesConfig(TokenStageConfig):
    """Writes the codes that the codec of stage `codec` makes: `pitch` frame by frame, `runs` and their `durations`.

    An utterance that is shorter than one code has none.
    """

    codec: str

    @property
    def needs(self) -> tuple[str, ...]:
        return (self.codec,)

    def found_spec(self, context: StageContext) -> TokenSpec:
        return self.tokenizer(context).spec

    def planned_spec(self, run: RunConfig) -> TokenSpec:
        stage = described(run, self.codec, PitchCodecStageConfig)
        return pitch_spec(stage.model, described(run, stage.pitch, PitchStageConfig).pitch)

    def tokenizer(self, context: StageContext) -> PitchTokenizer:
        stage, variables = trained(context.finished(self.codec))
        assert isinstance(stage, PitchCodecStageConfig)  # for the type checker
        return PitchTokenizer(self._tracker(context).pitch, stage.model, variables)

    def run(self, folder: StageFolder, context: StageContext) -> Sequence[str]:
        tokenizer = self.tokenizer(context)
        for split in SPLITS:
            rows = coded_rows(tokenizer, self._tracks(split, context))
            write_shared(self.records(folder, split), rows, len(context.source(split)))
        return [UNITS, on_first_host(lambda: write_spec(folder, tokenizer.spec))]

    def _tracker(self, context: StageContext) -> PitchStageConfig:
        stage = PitchCodecStageConfig.of(context.finished(self.codec))
        return PitchStageConfig.of(context.finished(stage.pitch))

    def _tracks(self, split: str, context: StageContext) -> Tracks:
        """F0 of this host's share: the table of the training speech is there, the other splits are tracked."""
        tracker = self._tracker(context)
        if split != "train":
            yield from tracker.tracks(context.source(split), context)
            return
        table = RecordSource(context.finished(tracker.name).path / "f0" / "train")
        for place in share_of(len(table)):
            yield place, table[place]


def coded_rows(tokenizer: PitchTokenizer, tracks: Tracks) -> Iterator[tuple[int, dict[str, Any]]]:
    """Rows of the table with their places, several utterances encoded at once."""
    hop = tokenizer.config.hop
    while group := list(islice(tracks, ROWS)):
        padded = [np.pad(row["f0_hz"], (0, max(0, hop - len(row["f0_hz"])))) for _, row in group]
        for (place, row), ids in zip(group, tokenizer.encode_tracks(padded), strict=True):
            ids = ids[: len(row["f0_hz"]) // hop].astype(np.int32)
            runs, durations = dedup_row(ids)
            made = {"pitch": ids, "runs": runs.astype(np.int32), "durations": durations.astype(np.int32)}
            yield place, {"id": row["id"], **made}
