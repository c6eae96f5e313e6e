"""A codec of pitch: F0 and voicing of the corpus through a codebook and back (Polyak et al. 2021; SpiRit-LM)."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from slm_jax.assemblies.pitch_codec import PitchCodecConfig
from slm_jax.assemblies.pitch_tokenizer import PitchTokenizer
from slm_jax.core.errors import require
from slm_jax.core.types import Frames
from slm_jax.data.examples.pitch_segments import PitchSegmentConfig
from slm_jax.data.joined import Subset
from slm_jax.data.order import Source
from slm_jax.data.pipeline import make_batches
from slm_jax.data.records import RecordSource
from slm_jax.data.shapes import stacked_shapes
from slm_jax.evaluation.pitch_codes import code_use, pitch_kept
from slm_jax.objectives.pitch_codes import PitchCodesObjective, PitchLossConfig, moved_pitch_codes
from slm_jax.parallel.sharding import unbox
from slm_jax.quantizers.codebook_start import started
from slm_jax.quantizers.codebooks import COLLECTION
from slm_jax.training.gradient_stage import GradientStageConfig, Learner, Outline, Plan, described, host_share
from slm_jax.training.loop import Evaluate
from slm_jax.training.pre.pitch import PitchStageConfig
from slm_jax.training.run_folder import StageFolder
from slm_jax.training.stages import RunConfig, StageContext
from slm_jax.training.state import Initialise
from slm_jax.training.step import Player, Statistics

HELD_OUT = 64
"""Utterances of the dev split that are measured while training."""


class PitchCodecStageConfig(GradientStageConfig):
    """Trains `model` on segments of `segment_s` seconds of the F0 that stage `pitch` found.

    Codes begin as clusters of the latents of `start_segments` segments (0: as they are drawn).
    """

    pitch: str
    model: PitchCodecConfig = PitchCodecConfig()
    losses: PitchLossConfig = PitchLossConfig()
    segment_s: float = 2.56
    start_segments: int = 128

    @property
    def needs(self) -> tuple[str, ...]:
        return (self.pitch,)

    def example(self, tracker: PitchStageConfig) -> PitchSegmentConfig:
        """How an utterance becomes a segment: whole codes."""
        codes = max(1, round(self.segment_s / (tracker.pitch.hop_s * self.model.hop)))
        return PitchSegmentConfig(values=codes * self.model.hop, features=self.model.features)

    def plan(self, folder: StageFolder, context: StageContext) -> Plan:
        tracker = PitchStageConfig.of(context.finished(self.pitch))
        table = RecordSource(context.finished(self.pitch).path / "f0" / "train")
        example, (initialise, players) = self.example(tracker), self._learner()
        start = partial(self._clustered, initialise, table, example) if self.start_segments else None
        return Plan(
            initialise,
            players,
            batches=make_batches(table, example.make(), self.batches, **host_share(self.train.mesh)),
            evaluate=self._evaluation(context, tracker),
            start_from=start,
            speech_s=lambda batch: float(batch["track_mask"].sum()) * tracker.pitch.hop_s,
            meta={"pitch_codec": self.model.to_json()},
        )

    def outline(self, run: RunConfig) -> Outline:
        tracker, rows = described(run, self.pitch, PitchStageConfig), self.batches.batch
        example = self.example(tracker)
        some = example.make()({example.f0: np.zeros(example.values, np.float32)}, np.random.default_rng(0))
        return Outline(
            *self._learner(),
            batch=stacked_shapes(some, rows),
            tokens=rows * example.values // self.model.hop,
            speech_s=rows * example.values * tracker.pitch.hop_s,
        )

    def model_of(self, folder: StageFolder) -> tuple[PitchCodecConfig, str]:
        return self.model, ""

    def planned_model(self, run: RunConfig) -> PitchCodecConfig:
        return self.model

    def shortened(self) -> "PitchCodecStageConfig":
        short = super().shortened()
        assert isinstance(short, PitchCodecStageConfig)  # for the type checker
        return short.replace(start_segments=0)

    def _learner(self) -> Learner:
        codec, hop = self.model.make(), self.model.hop
        statistics = None
        if self.model.quantizer.counted:
            update = partial(moved_pitch_codes, self.model)
            statistics = Statistics(collections=(COLLECTION,), update=update)
        objective = PitchCodesObjective(self.losses, codec)
        player = Player(name="pitch", objective=objective, optimizer=self.optimizer, statistics=statistics)
        return lambda key: codec.init(key, Frames(jnp.zeros((1, hop, 2)), jnp.ones((1, hop), bool))), [player]

    def _clustered(self, initialise: Initialise, source: Source, example: PitchSegmentConfig) -> dict[str, Any]:
        """A codec as it is drawn, with codes that are clusters of what its encoder makes of the first segments."""
        make, rng = example.make(), np.random.default_rng(self.train.seed)
        rows = [make(source[int(place)], rng) for place in rng.permutation(len(source))[: self.start_segments]]
        drawn = unbox(jax.jit(initialise)(jax.random.key(self.train.seed)))
        tracks, mask = (jnp.asarray(np.stack([row[name] for row in rows])) for name in ("tracks", "track_mask"))
        latents = jax.jit(partial(self.model.make().apply, method="latents"))(drawn, Frames(tracks, mask))
        enough = int(latents.mask.sum()) >= self.model.codes
        require(
            enough, f"{self.name}.start_segments", self.start_segments, f"{self.model.codes} codes must begin there"
        )
        books = {name: tree["quantizer"] for name, tree in drawn.items() if "quantizer" in tree}
        books = started(self.model.quantizer, books, latents)
        return {name: tree | {"quantizer": books[name]} if name in books else tree for name, tree in drawn.items()}

    def _evaluation(self, context: StageContext, tracker: PitchStageConfig) -> Evaluate | None:
        """What is left of the F0 of held-out utterances, and how codes are used."""
        dev = context.source("dev")
        found = tracker.tracks(Subset(dev, range(min(HELD_OUT, len(dev)))), context)
        tracks = [row["f0_hz"] for _, row in found if len(row["f0_hz"]) >= self.model.hop]
        if not tracks:
            context.say_unmeasured(self.name)
            return None

        def evaluate(state: Any, frozen: Any) -> dict[str, float]:
            tokenizer = PitchTokenizer(tracker.pitch, self.model, state.served)
            ids, mean = tokenizer.encode_tracks(tracks), self.model.features.mean
            made = [tokenizer.decode(row, mean(track)) for row, track in zip(ids, tracks, strict=True)]
            kept, use = pitch_kept(made, tracks), code_use(ids, self.model.codes)
            measured = {name: float(value) for name, value in kept._asdict().items() if name != "values"}
            return measured | {"used": use.used, "perplexity": use.perplexity}

        return evaluate
