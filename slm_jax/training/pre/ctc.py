"""Supervised encoders: speech to the characters of its text by CTC (Graves et al. 2006; Baevski et al. 2020)."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from slm_jax.core.errors import require
from slm_jax.core.part_source import PartSource, stages_of
from slm_jax.core.trees import together, without
from slm_jax.data.corpus import RATE_HZ, CorpusConfig
from slm_jax.data.examples.transcribed_speech import BLANK, LETTERS, TranscribedSpeechConfig
from slm_jax.data.joined import Subset
from slm_jax.data.pipeline import make_batches
from slm_jax.data.shapes import stacked_shapes
from slm_jax.encoders.fastconformer import FastConformerConfig
from slm_jax.encoders.ssl import SSLEncoderConfig
from slm_jax.encoders.ssl_ctc import CTCEncoder, CTCEncoderConfig
from slm_jax.encoders.whisper import WhisperEncoderConfig
from slm_jax.evaluation.ctc import CTCReader
from slm_jax.objectives.ctc import CTCConfig
from slm_jax.text.tokenizers import CharacterTokenizerConfig
from slm_jax.training.gradient_stage import GradientStageConfig, Learner, Outline, Plan, host_share
from slm_jax.training.loop import Evaluate
from slm_jax.training.parts import check_parts, open_parts, outlined
from slm_jax.training.run_folder import StageFolder
from slm_jax.training.stages import RunConfig, StageContext, require_form
from slm_jax.training.state import TrainState
from slm_jax.training.step import Player

Heard = SSLEncoderConfig | WhisperEncoderConfig | FastConformerConfig
ENCODER, FROZEN = "params/encoder", "frozen/encoder"


class CTCStageConfig(GradientStageConfig):
    """Trains `encoder`, with a head over the characters of `tokenizer` and the blank, on transcribed speech.

    Utterances longer than `longest_s` seconds, with more than `longest_text` characters or without text are left out,
    and counted. `start_from`: where the encoder's weights begin, `stage:NAME` of this run, `hub:NAME` or a folder; None
    draws them. `kinds`: which kinds of items, None for those that the corpus gives unless asked otherwise. Figures on
    the dev split: `nats_per_character` and `character_error_rate` of greedy decoding, over at most `evaluated` items.
    `with_head`: what later stages take is encoder and head (`PartSource.take` says which), not the encoder alone.
    `head_only`: the encoder of `start_from` stays as it is, and the head alone learns (what adapters that compress by
    CTC need). `take`: the part of the model in `start_from` that is meant, such as Whisper's encoder.
    """

    encoder: Heard
    tokenizer: CharacterTokenizerConfig = LETTERS
    longest_s: float = 15.0
    longest_text: int = 256
    start_from: str | None = None
    kinds: tuple[str, ...] | None = None
    evaluated: int = 64
    with_head: bool = False
    head_only: bool = False
    head_hidden: int = 0
    take: str | None = None

    def __post_init__(self) -> None:
        for name in ("head_only", "take"):
            value = getattr(self, name)
            require(not value or self.start_from is not None, name, value, "goes with start_from: what is kept?")

    @property
    def needs(self) -> tuple[str, ...]:
        return stages_of(self._parts)

    def check_outside(self, begun: StageFolder | None) -> None:
        check_parts(self._parts, begun)

    def check_corpus(self, corpus: CorpusConfig) -> None:
        require_form(self.name, corpus, RATE_HZ)

    def plan(self, folder: StageFolder, context: StageContext) -> Plan:
        source = self._fitting(context, "train")
        return Plan(
            *self._learner(),
            batches=make_batches(source, self.example.make(), self.batches, **host_share(self.train.mesh)),
            evaluate=self._evaluation(context),
            parts=open_parts(self._parts, folder) if self._parts else None,
            speech_s=lambda batch: float(batch["sample_mask"].sum()) / RATE_HZ,
            meta={"tokenizer": self.tokenizer.to_json()},
        )

    def outline(self, run: RunConfig) -> Outline:
        rows, example = self.batches.batch, self.example
        item = {"samples": np.zeros(example.samples, np.float32), "text": self.tokenizer.characters[:1]}
        return Outline(
            *self._learner(),
            batch=stacked_shapes(example.make()(item, np.random.default_rng(0)), rows),
            tokens=rows * int(self.encoder.frame_count(example.samples)),
            speech_s=rows * example.samples / RATE_HZ,
            frozen=outlined(self._parts, run)[1],
        )

    @property
    def example(self) -> TranscribedSpeechConfig:
        """How an utterance and its text become arrays."""
        samples = round(self.longest_s * RATE_HZ)
        return TranscribedSpeechConfig(samples=samples, labels=self.longest_text, tokenizer=self.tokenizer)

    def model(self) -> CTCEncoder:
        """The encoder with its head; `training.gradient_stage.trained` gives its variables."""
        return self._whole.make()

    def model_of(self, folder: StageFolder) -> tuple[Heard | CTCEncoderConfig, str]:
        return (self._whole, "") if self.with_head else (self.encoder, "encoder")

    def planned_model(self, run: RunConfig) -> Heard | CTCEncoderConfig:
        return self._whole if self.with_head else self.encoder

    @property
    def _whole(self) -> CTCEncoderConfig:
        return CTCEncoderConfig(encoder=self.encoder, classes=self.example.classes, head_hidden=self.head_hidden)

    @property
    def _parts(self) -> tuple[PartSource, ...]:
        if self.start_from is None:
            return ()
        path = FROZEN if self.head_only else ENCODER
        source, frozen = self.start_from, self.head_only
        return (PartSource(path=path, source=source, frozen=frozen, expect=self.encoder, take=self.take),)

    def _learner(self) -> Learner:
        model, example = self.model(), self.example
        objective = CTCConfig(blank=BLANK).make(model)
        player = Player(name="encoder", objective=objective, optimizer=self.optimizer)

        def initialise(key: jax.Array) -> dict[str, Any]:
            variables = model.init(key, jnp.zeros((1, example.samples)))
            return {"params": without(variables["params"], "encoder")} if self.head_only else variables

        return initialise, [player]

    def _fitting(self, context: StageContext, split: str) -> Subset:
        source = context.source(split, self.kinds)
        kept = [i for i in range(len(source)) if self.example.fits(source[i])]
        if len(kept) < len(source):
            left_out = f"{len(source) - len(kept)} of {len(source)} items of {split}"
            context.say(f"stage {self.name}: {left_out} are too long or have no text: left out")
        return Subset(source, kept)

    def _evaluation(self, context: StageContext) -> Evaluate | None:
        dev = self._fitting(context, "dev")
        if not len(dev):
            context.say_unmeasured(self.name)
            return None
        items = [dev[i] for i in range(min(len(dev), self.evaluated))]

        def evaluate(state: TrainState, frozen: Any) -> dict[str, float]:
            return CTCReader(self.model(), together(state.served, frozen), self.example, self.batches.batch).figures(
                items
            )

        return evaluate
