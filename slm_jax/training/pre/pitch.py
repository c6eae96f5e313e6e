"""F0 of every utterance, estimated from the speech itself, with the statistics a vocoder normalises by."""

import json
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from slm_jax.audio.pitch import PitchConfig
from slm_jax.core.errors import require
from slm_jax.core.paths import AnyPath
from slm_jax.data.corpus import CorpusConfig
from slm_jax.data.passes import float_samples
from slm_jax.data.records import RecordSource
from slm_jax.data.shares import share_of, write_shared
from slm_jax.parallel.hosts import on_first_host
from slm_jax.training.feature_passes import f0_tracks, pitch_values
from slm_jax.training.run_folder import StageFolder
from slm_jax.training.stages import StageConfig, StageContext, require_form

VOICE = "voice.json"


class PitchStageConfig(StageConfig):
    """Writes `f0/train`: `id` and `f0_hz` (one value per `pitch.hop_s` seconds, 0 where unvoiced).

    `known`: a field of the corpus that holds F0 on that grid already (the synthetic world's `f0_hz`); it is taken
    instead of tracking where the corpus has it. `voice.json` holds mean and standard deviation of ln F0 over the
    voiced frames, and the speakers' names.
    """

    pitch: PitchConfig = PitchConfig(hop_s=0.0125)
    known: str | None = None

    def check_corpus(self, corpus: CorpusConfig) -> None:
        require_form(self.name, corpus, self.pitch.rate_hz, "pitch.rate_hz")

    def run(self, folder: StageFolder, context: StageContext) -> Sequence[str]:
        source, table = context.source("train"), folder.path / "f0" / "train"
        write_shared(table, self.tracks(source, context), len(source))
        on_first_host(lambda: self._write_statistics(table, folder.path / VOICE))
        return ["f0", VOICE]

    def _write_statistics(self, table: AnyPath, path: AnyPath) -> None:
        source = RecordSource(table)
        rows = [source[i] for i in range(len(source))]
        voiced = np.concatenate([row["f0_hz"][row["f0_hz"] > 0] for row in rows])
        require(len(voiced) > 0, f"stage {self.name}: voiced frames", 0, "the corpus must hold some voiced speech")
        statistics = {
            "log_f0_mean": round(float(np.log(voiced).mean()), 4),
            "log_f0_std": round(max(float(np.log(voiced).std()), 0.05), 4),
            "speakers": sorted({row["speaker"] for row in rows}),
        }
        path.write_text(json.dumps(statistics, indent=1), encoding="utf-8")

    def track(self, item: dict[str, Any]) -> Float[np.ndarray, "P"]:
        """F0 (Hz, 0 where unvoiced) of one item, as the tables hold it."""
        if self.known in item:
            return item[self.known]
        samples = float_samples(item["samples"])
        padded = np.pad(samples, (0, -len(samples) % self.pitch.rate_hz))  # whole seconds: few shapes to compile
        real = np.arange(len(padded)) < len(samples)
        return np.asarray(self.pitch.make()(padded[None], real[None])[0])[0, : pitch_values(self.pitch, len(samples))]

    def tracks(self, source: Any, context: StageContext) -> Iterator[tuple[int, dict[str, Any]]]:
        """Places and rows (`id`, `speaker`, `f0_hz`) of this host's share of a source, as the tables hold them."""
        if len(source) and self.known in source[0]:
            return self._given(source)
        return self._tracks(source, context)

    def _given(self, source: Any) -> Iterator[tuple[int, dict[str, Any]]]:
        for place in share_of(len(source)):
            item = source[place]
            yield place, {"id": item["id"], "speaker": item["speaker"], "f0_hz": item[self.known]}

    def _tracks(self, source: Any, context: StageContext) -> Iterator[tuple[int, dict[str, Any]]]:
        """Places and rows of this host's share, in the order in which they come."""
        for place, row, f0_hz in f0_tracks(self.pitch, source, context, self.name, ("id", "speaker")):
            yield place, {**row, "f0_hz": f0_hz}


def voice_statistics(folder: StageFolder) -> dict[str, Any]:
    """What a finished stage of this kind found: `log_f0_mean`, `log_f0_std`, `speakers`."""
    return json.loads((folder.path / VOICE).read_text(encoding="utf-8"))
