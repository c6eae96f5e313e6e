"""A neural codec: waveforms through codebooks and back, with judges or without (Zeghidour et al. 2021 and after)."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from slm_jax.assemblies.codec import Codec, CodecConfig
from slm_jax.assemblies.phonetic_tokenizer import RATE_HZ
from slm_jax.core.config import Config
from slm_jax.core.part_source import PartSource, stages_of
from slm_jax.core.types import Frames
from slm_jax.data.corpus import CorpusConfig
from slm_jax.data.examples.waveform_segments import ChannelConfig, WaveformSegmentConfig
from slm_jax.data.mixed_sounds import MixedConfig, MixedSounds
from slm_jax.data.order import Source
from slm_jax.data.pipeline import make_batches
from slm_jax.decoders.spectral_discriminators import Judges, JudgesConfig
from slm_jax.objectives.codec import (
    BALANCE,
    CodecLossConfig,
    CodecObjective,
    JudgesObjective,
    first_balance,
    moved,
)
from slm_jax.objectives.taught import LESSON, Teacher
from slm_jax.parallel.sharding import unbox
from slm_jax.quantizers.codebook_start import started
from slm_jax.quantizers.codebooks import COLLECTION
from slm_jax.quantizers.fsq import FSQConfig
from slm_jax.training.gradient_stage import (
    GradientStageConfig,
    Learner,
    Outline,
    Plan,
    host_share,
    trained,
    without_warmup,
)
from slm_jax.training.loop import Evaluate
from slm_jax.training.optimizer import OptimizerConfig
from slm_jax.training.parts import check_parts, open_parts, outlined
from slm_jax.training.pre.codec_teacher import PATH, CodecTeacherConfig
from slm_jax.training.pre.segments import channels_apart, held_out_segments, segment_shapes, whole_frames
from slm_jax.training.run_folder import StageFolder
from slm_jax.training.stages import RunConfig, StageContext, require_form
from slm_jax.training.state import Initialise
from slm_jax.training.step import Player, Statistics

HELD_OUT = 64
"""Segments of the dev split that are measured while training."""


class CodecStageConfig(GradientStageConfig):
    """Trains `model` on segments of `segment_s` seconds; adversarially where there are `judges`.

    `mixed`: how many recordings sound at once; `channel`: how segments are changed, as other microphones and lines
    would. Codebooks begin as clusters of the
    latents of `start_segments` segments (0: as they are drawn). `start_from`: an earlier stage of this kind, such as
    the same without judges. `judges_move`: the judges learn in so large a share of the steps, drawn by chance (EnCodec:
    two of three). `teacher`: who gives the first book meaning; the codec that comes out does not have it.
    """

    model: CodecConfig
    segment_s: float = 1.0
    losses: CodecLossConfig = CodecLossConfig()
    judges: JudgesConfig | None = None
    judge_optimizer: OptimizerConfig = OptimizerConfig(learning_rate=3e-4, betas=(0.5, 0.9))
    judges_move: float = 1.0
    mixed: MixedConfig | None = None
    channel: ChannelConfig | None = None
    start_segments: int = 128
    start_from: str | None = None
    teacher: CodecTeacherConfig | None = None

    @property
    def needs(self) -> tuple[str, ...]:
        before = () if self.start_from is None else (self.start_from,)
        return tuple(dict.fromkeys((*stages_of(self._parts), *before)))

    @property
    def _parts(self) -> tuple[PartSource, ...]:
        return () if self.teacher is None else (self.teacher.features.part,)

    def check_outside(self, begun: StageFolder | None) -> None:
        check_parts(self._parts, begun)

    def check_corpus(self, corpus: CorpusConfig) -> None:
        require_form(self.name, corpus, self.model.rate_hz, "model.rate_hz", channels=2)

    @property
    def example(self) -> WaveformSegmentConfig:
        """How a recording becomes a segment: whole frames of tokens."""
        samples = whole_frames(self.segment_s, self.model.rate_hz, self.model.unit)
        heard_hz = None if self.teacher is None or self.model.rate_hz == RATE_HZ else RATE_HZ
        return WaveformSegmentConfig(
            samples=samples, rate_hz=self.model.rate_hz, channel=self.channel, heard_hz=heard_hz
        )

    def plan(self, folder: StageFolder, context: StageContext) -> Plan:
        apart = channels_apart(context, "train")
        source = apart if self.mixed is None else MixedSounds(apart, self.mixed)
        parts = open_parts(self._parts, folder) if self._parts else None
        teacher = self._teacher({} if parts is None else parts.configs)
        initialise, players = self._learner(teacher)
        start: Any = None if self.start_from is None else self._earlier(context)
        if start is None and self.start_segments and not isinstance(self.model.quantizer, FSQConfig):
            start = partial(self._clustered, initialise, source)
        return Plan(
            initialise,
            players,
            batches=make_batches(source, self.example.make(), self.batches, **host_share(self.train.mesh)),
            evaluate=self._evaluation(context, teacher),
            parts=parts,
            start_from=start,
            speech_s=lambda batch: float(batch["sample_mask"].sum()) / self.model.rate_hz,
            meta={"codec": self.model.to_json()},
        )

    def outline(self, run: RunConfig) -> Outline:
        rows, example = self.batches.batch, self.example
        configs, shapes = outlined(self._parts, run)
        return Outline(
            *self._learner(self._teacher(configs)),
            batch=segment_shapes(example, rows),
            tokens=rows * self.model.frame_count(example.samples),
            speech_s=rows * example.samples / self.model.rate_hz,
            frozen=shapes,
        )

    def model_of(self, folder: StageFolder) -> tuple[CodecConfig, str]:
        return self.model, "generator"

    def planned_model(self, run: RunConfig) -> CodecConfig:
        return self.model

    def shortened(self) -> "CodecStageConfig":
        short = super().shortened()
        assert isinstance(short, CodecStageConfig)  # for the type checker
        return short.replace(judge_optimizer=without_warmup(self.judge_optimizer), start_segments=0)

    def _teacher(self, configs: dict[str, Config]) -> Teacher | None:
        """The teacher, where there is one."""
        return None if self.teacher is None else self.teacher.make(configs[PATH], self.model, self.name)

    def _earlier(self, context: StageContext) -> dict[str, Any]:
        """What the stage before has learnt of what is learnt here."""
        assert self.start_from is not None  # for the type checker
        found = trained(context.finished(self.start_from))[1]
        known = {"generator"} | ({"discriminator"} if self.judges else set()) | ({LESSON} if self.teacher else set())
        return {**found, "params": {name: tree for name, tree in found["params"].items() if name in known}}

    def _learner(self, teacher: Teacher | None = None) -> Learner:
        codec = self.model.make()
        judges = None if self.judges is None else self.judges.make()
        samples = jnp.zeros((1, self.example.samples))

        def start(key: jax.Array) -> dict[str, Any]:
            drawn = codec.init({"params": key, "dropout": key}, samples)
            variables = {name: {"generator": tree} for name, tree in drawn.items()}
            if judges is not None:
                judge = judges.init(jax.random.fold_in(key, 1), samples)["params"]
                variables["params"] = {**variables["params"], "discriminator": judge}
            if teacher is not None:
                first = codec.apply(drawn, samples).quantized.first
                lesson = teacher.lesson.init(jax.random.fold_in(key, 2), first)["params"]
                variables["params"] = {**variables["params"], LESSON: lesson}
            if self.losses.balance is not None:
                variables[BALANCE] = first_balance(self.losses, judges is not None)
            return variables

        return start, self._players(codec, judges, teacher)

    def _players(self, codec: Codec, judges: Judges | None, teacher: Teacher | None) -> list[Player]:
        objective = CodecObjective(self.losses, codec, judges, teacher)
        counted: tuple[str, ...] = (COLLECTION,) if self.model.quantizer.counted else ()
        counted += () if self.losses.balance is None else (BALANCE,)
        update = partial(moved, self.model, self.losses)
        statistics = Statistics(collections=counted, update=update) if counted else None
        player = Player(
            name="codec",
            objective=objective,
            owns=objective.owns,
            optimizer=self.optimizer,
            statistics=statistics,
            shows=objective.shows,
        )
        if judges is None:
            return [player]
        judging = JudgesObjective(self.losses, codec, judges)
        judge = Player(
            name="judges",
            objective=judging,
            owns=judging.owns,
            optimizer=self.judge_optimizer,
            chance=self.judges_move,
        )
        return [judge, player]  # the judges move first, on what the codec made before this step

    def _clustered(self, initialise: Initialise, source: Source) -> dict[str, Any]:
        """A codec as it is drawn, with codebooks that are clusters of what its encoder makes of the first segments."""
        make, codec = self.example.make(), self.model.make()
        rng = np.random.default_rng(self.train.seed)
        picked = rng.permutation(len(source))[: self.start_segments]
        rows = [make(source[int(place)], rng) for place in picked]
        drawn = unbox(jax.jit(initialise)(jax.random.key(self.train.seed)))
        own = {name: tree["generator"] for name, tree in drawn.items() if "generator" in tree}
        samples, mask = (jnp.asarray(np.stack([row[name] for row in rows])) for name in ("samples", "sample_mask"))
        latents = jax.jit(partial(codec.apply, method="latents"))(own, samples, mask)
        books = {name: tree["quantizer"] for name, tree in own.items() if "quantizer" in tree}
        assert not isinstance(self.model.quantizer, FSQConfig)  # for the type checker: it has no books
        books = started(self.model.quantizer, books, latents)
        joined = {name: tree | {"quantizer": books[name]} if name in books else tree for name, tree in own.items()}
        return {name: {"generator": tree} for name, tree in joined.items()}

    def _evaluation(self, context: StageContext, teacher: Teacher | None) -> Evaluate | None:
        """Losses of the waveform on held-out segments, which are the same each time and unchanged."""
        batch = held_out_segments(context, self.example, HELD_OUT, self.name)
        if batch is None:
            return None
        samples, mask = batch["samples"], batch["sample_mask"]
        codec = self.model.make()
        objective = CodecObjective(self.losses, codec)

        @jax.jit
        def measured(variables: Any, frozen: Any) -> dict[str, jax.Array]:
            own = {name: tree["generator"] for name, tree in variables.items() if "generator" in tree}
            coded = codec.apply(own, samples, mask)
            made = coded.samples[:, : samples.shape[1]]
            found = {name: rows.mean() for name, rows in objective.of_waveform({}, samples, mask)(made).items()}
            if teacher is not None:
                lesson = teacher.term(variables, frozen, batch, coded.quantized.first)
                found["taught"] = lesson.total / lesson.count
            return found | {"perplexity": perplexity(coded.quantized.ids, coded.latents, self.model)}

        def evaluate(state: Any, frozen: Any) -> dict[str, float]:
            return {name: float(value) for name, value in measured(state.served, frozen).items()}

        return evaluate


def perplexity(ids: jax.Array, latents: Frames, config: CodecConfig) -> jax.Array:
    """The exponential of the entropy of how often codes are chosen, as a share of the codes; the mean over columns."""
    real = latents.mask[:, :: config.quantizer.stride].astype(jnp.float32)
    shares = []
    for column, size in enumerate(config.quantizer.sizes):
        counts = jax.ops.segment_sum(real.reshape(-1), ids[..., column].reshape(-1), size)
        share = counts / jnp.maximum(counts.sum(), 1)
        shares.append(jnp.exp(-(share * jnp.log(jnp.maximum(share, 1e-12))).sum()) / size)
    return jnp.stack(shares).mean()
