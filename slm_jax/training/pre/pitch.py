"""F0 of every utterance, estimated from the speech itself, with the statistics a vocoder normalises by."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from slm_jax.audio.pitch import PitchConfig
from slm_jax.core.errors import require
from slm_jax.data.lengths import bucket_lengths, source_lengths
from slm_jax.data.passes import finite_batches, in_order
from slm_jax.data.progress import tracked
from slm_jax.data.records import write_records
from slm_jax.training.run_folder import StageFolder
from slm_jax.training.stages import StageConfig, StageContext

VOICE = "voice.json"


class PitchStageConfig(StageConfig):
    """Writes `f0/train`: `id` and `f0_hz` (one value every `pitch.hop_s` seconds from time 0, 0 where unvoiced).

    `voice.json` holds mean and standard deviation of ln F0 over the voiced frames, and the speakers' names.
    """

    pitch: PitchConfig = PitchConfig(hop_s=0.0125, centre_s=0.0)
    batch: int = 16

    def run(self, folder: StageFolder, context: StageContext) -> Sequence[str]:
        source = context.source("train")
        rows = list(self._tracks(source, context.progress))
        write_records(folder.path / "f0" / "train", rows)
        voiced = np.concatenate([row["f0_hz"][row["f0_hz"] > 0] for row in rows])
        require(len(voiced) > 0, f"stage {self.name}: voiced frames", 0, "the corpus must hold some voiced speech")
        statistics = {
            "log_f0_mean": round(float(np.log(voiced).mean()), 4),
            "log_f0_std": round(max(float(np.log(voiced).std()), 0.05), 4),
            "speakers": sorted({row["speaker"] for row in rows}),
        }
        (folder.path / VOICE).write_text(json.dumps(statistics, indent=1), encoding="utf-8")
        return ["f0", VOICE]

    def _tracks(self, source: Any, progress: bool) -> Iterator[dict[str, Any]]:
        track = jax.jit(self.pitch.make())
        lengths = bucket_lengths(source_lengths(source, "samples"), multiple=1600)
        batches = finite_batches(source, lengths, self.batch, ("id", "speaker"))

        def rows() -> Iterator[tuple[int, dict[str, Any]]]:
            for batch in tracked(batches, len(source), self.name, progress):
                f0_hz = np.asarray(track(batch["samples"], batch["mask"])[0])
                counts = batch["mask"].sum(1) // round(self.pitch.hop_s * self.pitch.rate_hz)
                for i, index in enumerate(batch["index"]):
                    row = {"id": batch["id"][i], "speaker": batch["speaker"][i], "f0_hz": f0_hz[i, : counts[i]]}
                    yield int(index), row

        return in_order(rows(), len(source))


def voice_statistics(folder: StageFolder) -> dict[str, Any]:
    """What a finished stage of this kind found: `log_f0_mean`, `log_f0_std`, `speakers`."""
    return json.loads(Path(folder.path / VOICE).read_text(encoding="utf-8"))
