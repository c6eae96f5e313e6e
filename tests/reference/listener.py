"""The reference system: it answers questions about what it hears in words, and hums along in sessions.

    speech -> frozen encoder -> adapter -> frozen text LM with LoRA -> words           `respond`, `log_prob`
    microphone -> levels -> decoder over three streams -> a sine                       `open`

It is nobody's published system. It shows on one page each what a system is made of: stages of its own, parts from a
stage and from a folder, two loss terms, LoRA, sessions; and all verbs work on it as they are.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any, ClassVar

import jax
import numpy as np

from slm_jax.adapters.linear import LinearAdapterConfig
from slm_jax.audio.files import resample
from slm_jax.core.contracts import Reply
from slm_jax.core.messages import Conversation, Message, Speech, Text, conversation
from slm_jax.core.part_source import PartSource
from slm_jax.data.corpus import WorldConfig
from slm_jax.data.passes import float_samples
from slm_jax.data.pipeline import PipelineConfig
from slm_jax.encoders.positional_conv import PositionalConvConfig
from slm_jax.encoders.ssl import SSLEncoderConfig
from slm_jax.evaluation.section import JudgeConfig, Lacking
from slm_jax.generation.decode import generate
from slm_jax.generation.sampling import SamplingConfig
from slm_jax.judges.losses import LossesJudge
from slm_jax.nn.lora import LoRAConfig
from slm_jax.objectives.streams import NextStreamsConfig
from slm_jax.sequence_models.decoder_config import DecoderConfig
from slm_jax.sequence_models.multi_stream import MultiStreamConfig
from slm_jax.serving.hearing import checked, require_readable
from slm_jax.text.tokenizers import ByteTokenizer
from slm_jax.training.gradient_stage import trained
from slm_jax.training.kept import KeptSpeechConfig
from slm_jax.training.loop import TrainConfig
from slm_jax.training.optimizer import OptimizerConfig
from slm_jax.training.part_record import recorded_configs
from slm_jax.training.parts import load_frozen
from slm_jax.training.stages import RunConfig, StageContext
from tests.reference.answer_stage import ENCODER, KINDS, LM, AnswerStageConfig
from tests.reference.answerer import VOCABULARY, Answerer, prompt_parts, speech_vectors, text_vectors
from tests.reference.duet import LEVELS, DuetSession, DuetStageConfig
from tests.reference.encoder_stage import EncoderStageConfig

ANSWERS = SamplingConfig(max_new=48, temperature=0.0)
CLIP_S = 0.5
"""Clips are padded to multiples of this, so that few shapes compile."""
TARGETS = ".*/attention/(query|value)"
TEXT = 64
"""Words too, to multiples of so many bytes."""


@dataclasses.dataclass(frozen=True)
class Listener:
    """The trained parts of one run."""

    answerer: Answerer
    variables: Any
    frozen: Any
    duet: Any
    duet_variables: Any
    rate_hz: int
    decoding: SamplingConfig = ANSWERS

    reads: ClassVar[frozenset[str]] = frozenset({"speech", "text"})
    writes: ClassVar[frozenset[str]] = frozenset({"text"})

    def respond(
        self, conversations: Sequence[Conversation], decoding: SamplingConfig | None, key: jax.Array
    ) -> list[Reply]:
        """Words after each conversation; the trace has `ids` and `log_probs`."""
        require_readable(conversations, self.reads)
        if not conversations:
            return []
        rows = [self._vectors(one) for one in conversations]
        lengths = np.array([len(row) for row in rows])
        prompts = np.stack([np.pad(row, ((0, lengths.max() - len(row)), (0, 0))) for row in rows])
        mask = np.arange(lengths.max()) < lengths[:, None]
        rules = (self.decoding if decoding is None else decoding).replace(end=VOCABULARY.eos_id, forbidden=self._never)
        lm = self.answerer.language_model(self.variables, self.frozen)
        made = generate(self.answerer.lm, lm, prompts, mask, key, rules)
        return [self._reply(*row) for row in zip(*map(np.asarray, (made.ids, made.mask, made.log_probs)), strict=True)]

    def open(self, batch: int, seed: int = 0) -> DuetSession:
        """A session of `batch` rows."""
        sampling = SamplingConfig(temperature=0.9)
        return DuetSession(self.duet, self.duet_variables, batch, self.rate_hz, sampling, seed)

    def _vectors(self, conversation: Conversation) -> np.ndarray:
        """What a conversation is to the language model, [S, D]."""
        parts = prompt_parts(conversation)
        return np.concatenate([self._clip(one) if isinstance(one, Speech) else self._words(one) for one in parts])

    def _clip(self, clip: Speech) -> np.ndarray:
        samples = resample(checked(clip.samples, "samples"), clip.rate_hz, self.rate_hz)
        padded, mask = padded_row(samples, round(CLIP_S * self.rate_hz))
        frames = speech_vectors(self.answerer, self.variables, self.frozen, padded, mask)
        return np.asarray(frames.values[0])[np.asarray(frames.mask[0])]

    def _words(self, ids: list[int]) -> np.ndarray:
        padded, mask = padded_row(np.array(ids, np.int32), TEXT)
        return np.asarray(text_vectors(self.answerer, self.frozen, padded)[0])[mask[0]]

    def _reply(self, ids: np.ndarray, mask: np.ndarray, log_probs: np.ndarray) -> Reply:
        units, inside = VOCABULARY.decode_range("text", ids[mask])
        text = ByteTokenizer().decode(np.asarray(units)[inside].tolist())
        return Reply((Message("assistant", (Text(text),)),), {"ids": ids[mask], "log_probs": log_probs[mask]})

    @property
    def _never(self) -> tuple[int, ...]:
        size = self.answerer.lm.config.vocabulary
        return tuple(np.flatnonzero(~VOCABULARY.range_mask("text", "</s>", padded_to=size)).tolist())


def padded_row(values: np.ndarray, multiple: int) -> tuple[np.ndarray, np.ndarray]:
    """One row `[1, N]` filled up to a multiple, and its mask."""
    length = -(-len(values) // multiple) * multiple
    return np.pad(values, (0, length - len(values)))[None], (np.arange(length) < len(values))[None]


class ListenerConfig(RunConfig):
    """A run of the reference system."""

    judges: tuple[JudgeConfig, ...] = (LossesJudge(),)

    def prompts(self, context: StageContext, count: int, seconds: float | int | None = None) -> dict[str, Conversation]:
        """Held-out questions about what is heard, by the items' ids, without their answers; clips are never cut."""
        source = context.source("test", KINDS)
        items = [source[i] for i in range(min(count, len(source)))]
        if not items:
            raise Lacking("the test split has no questions")
        rate_hz = self.corpus.rate_hz
        return {one["id"]: conversation(one["messages"][:-1], float_samples(one["samples"]), rate_hz) for one in items}

    def load(self, context: StageContext) -> Listener:
        folder = context.finished("answers")
        stage, variables = trained(folder)
        duet, duet_variables = trained(context.finished("duet"))
        return Listener(
            answerer=stage.answerer(recorded_configs(folder)),
            variables=variables,
            frozen=load_frozen(context.run, "answers")["frozen"],
            duet=duet.model.make(),
            duet_variables=duet_variables,
            rate_hz=self.corpus.rate_hz,
        )


def tiny_lm() -> DecoderConfig:
    """The text LM that the folder must hold."""
    return DecoderConfig(
        vocabulary=VOCABULARY.padded_size(8),
        layers=2,
        width=32,
        heads=2,
        hidden=64,
        norm="rms",
        activation="silu",
        gated=True,
        positions="rope",
        tied_head=False,
    )


def tiny_encoder() -> SSLEncoderConfig:
    """A frame every 320 samples."""
    return SSLEncoderConfig(
        front_end="log_mel",
        conv_layers=((32, 3, 1), (32, 3, 2)),
        extractor_norm="layer",
        position=PositionalConvConfig(kernel=5, groups=0, weight_norm=False, form="unfold"),
        layers=2,
        width=32,
        heads=2,
        hidden=64,
        dropout=0.0,
        attention_dropout=0.0,
    )


def duet_model() -> MultiStreamConfig:
    """Two own streams and that of the other; the last five seconds are seen."""
    body = DecoderConfig(vocabulary=1, layers=2, width=32, heads=2, hidden=64, positions="rope", window=64)
    return MultiStreamConfig(streams=(LEVELS, LEVELS, LEVELS), body=body)


def config(lm_folder: str, steps: int = 4, **train: Any) -> ListenerConfig:
    """The whole run; `lm_folder` holds a text LM of the shape of `tiny_lm`."""
    settings = TrainConfig(steps=steps, log_every=2, checkpoint_every_steps=2, **train)
    shared: dict[str, Any] = {"train": settings, "optimizer": OptimizerConfig(learning_rate=3e-3)}
    batches = PipelineConfig(batch=8)
    stages = (
        EncoderStageConfig(name="encoder", encoder=tiny_encoder(), hop=320, crop=16_000, batches=batches, **shared),
        AnswerStageConfig(
            name="answers",
            parts=(
                PartSource(path=ENCODER, source="stage:encoder", expect=tiny_encoder()),
                PartSource(path=LM, source=lm_folder, expect=tiny_lm()),
            ),
            adapter=LinearAdapterConfig(width=32, stack=4),
            lora=LoRAConfig(targets=TARGETS, rank=4),
            clip=96_000,
            length=224,
            batches=batches,
            **shared,
        ),
        DuetStageConfig(
            name="duet",
            model=duet_model(),
            objective=NextStreamsConfig(names=("loudness", "pitch", "other"), weights=(1.0, 1.0, 0.2)),
            frames=64,
            batches=batches,
            **shared,
        ),
    )
    corpus = WorldConfig(
        hours=0.01,
        instruction_hours=0.02,
        dialogue_hours=0.012,
        speakers=2,
        channels=2,
        processes=1,
        test_share=0.3,
        dev_share=0.2,
    )
    keeps = KeptSpeechConfig(minutes=1.0, splits=("test",), kinds=("sentence", "instruction"))
    return ListenerConfig(name="listener", corpus=corpus, stages=stages, keeps=keeps)
