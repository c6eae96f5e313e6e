"""Qwen-Audio and Qwen2-Audio: one encoder for all sounds, tasks told apart by what is asked.

    clip -> Whisper's encoder, its own length -> means of two frames -> norm, map -> Qwen -> words

Chu et al. 2023 (arXiv 2311.07919), Chu et al. 2024 (arXiv 2407.10759). What is special: the encoder learns to speak to
a frozen language model (pre-training), then that model learns from the frozen encoder (chat). 25 vectors stand for a
second. Qwen-Audio tells more than thirty tasks apart by rows of tags
(`text.task_tags`) and puts a learnt vector before and behind each clip; Qwen2-Audio is asked in plain words and marks
clips by tokens. `released(folder)` takes the weights that were published.

What differs. The encoder of Qwen-Audio cuts the features of a batch at its longest clip, and lets the others hear the
frames behind them; ours makes of each clip what it is alone. What is beyond 30 s is refused, not cut. Rows of more
than `seq_length` entries, where the released code changes its rotary base, are refused too. Qwen2-Audio's last stage,
which learns from preferences, is not here. Interpretation: steps, rates, batches and how much of the features is masked
(SpecAugment), of which no recipe is released; that Qwen2-Audio freezes what Qwen-Audio does;
that the adapter, which the released code keeps inside the encoder, goes on learning in both stages; and that the
language model's table has rows for the tags before pre-training begins (`sequence_models.expansion`).

Sizes: "qwen-audio" (Whisper large-v2, Qwen-7B), "qwen2-audio" (Whisper large-v3), and "tiny", which is Qwen-Audio. In
the place of Whisper's it has an encoder with convolutions for positions, which CTC teaches letters in minutes (one of
Whisper's form, of attention alone, hears nothing yet by then); its byte LM learns the texts of the world first. Since
that has never read a tag, its table and its head learn in pre-training too, its layers do not. It needs no download.
"""

from pathlib import Path

import jax
import jax.numpy as jnp

from slm_jax.adapters.chain import ChainConfig
from slm_jax.adapters.ends import EndsConfig
from slm_jax.adapters.pool import PoolAdapterConfig
from slm_jax.assemblies.speech_aware_lm import SpeechAwareLMConfig
from slm_jax.assemblies.whisper import whisper
from slm_jax.core.errors import nearest, require
from slm_jax.core.part_source import PartSource
from slm_jax.data.corpus import CorpusConfig, WorldConfig
from slm_jax.data.examples.speech_prompts import PromptLayout
from slm_jax.data.examples.speech_tasks import AnsweredTaskConfig, AskedTaskConfig, SpeechTaskConfig
from slm_jax.data.examples.tagged_tasks import TaggedTaskConfig
from slm_jax.data.mixture import MixtureConfig, PartConfig
from slm_jax.data.pipeline import PipelineConfig
from slm_jax.encoders.span_masks import SpanMasksConfig
from slm_jax.encoders.ssl import SSLEncoderConfig
from slm_jax.encoders.ssl_presets import log_mel_tiny
from slm_jax.encoders.whisper import WhisperEncoderConfig
from slm_jax.interop.model import load
from slm_jax.parallel.mesh import MeshConfig
from slm_jax.sequence_models.presets import llama
from slm_jax.serving.speech_aware import AnswerDecoding, SpeechAwareSystem
from slm_jax.systems.card import KeptFigure, SystemCard
from slm_jax.systems.recipes.small_parts import letters_encoder, text_lm
from slm_jax.systems.recipes.speech_aware import SpeechAwareConfig, speech_aware_run
from slm_jax.text.marked_tokens import SpecialsConfig
from slm_jax.text.task_tags import QWEN_AUDIO_TAGS, TaskTags
from slm_jax.text.templates import QWEN2_AUDIO, QWEN2_AUDIO_BASE, QWEN_AUDIO, QWEN_AUDIO_CHAT, Template
from slm_jax.text.tokenizers import TokenizerFileConfig
from slm_jax.training.loop import TrainConfig
from slm_jax.training.optimizer import OptimizerConfig
from slm_jax.training.post.speech_aware import SpeechAwareStageConfig

REAL = "experiments/qwen_audio/both.json"
CARD = SystemCard(
    name="Qwen-Audio",
    paper="Chu et al. 2023, 2024",
    sizes=("tiny", "qwen-audio", "qwen2-audio"),
    reads=("speech", "text"),
    writes=("text",),
    counted="chat",
    plans=("qwen2_audio_v5e",),
    figures=(
        KeptFigure(words="WER, speakers nobody heard", file=REAL, place=("words", "transcription", "wer")),
        KeptFigure(words="with other speech", file=REAL, place=("words", "transcription", "other_speech", "wer")),
        KeptFigure(words="loudness, exact", file=REAL, place=("words", "energy", "exact")),
        KeptFigure(words="with other speech", file=REAL, place=("words", "energy", "other_speech", "exact")),
    ),
)
ENCODERS = {"qwen-audio": "large-v2", "qwen2-audio": "large-v3"}
END = "<|endoftext|>"
TAGS = QWEN_AUDIO_TAGS.replace(styles=(*QWEN_AUDIO_TAGS.styles, "energy", "register", "speaking_rate"))
"""What the world knows of a voice has no tags among the published ones."""
MASKS = SpanMasksConfig(share=0.05, channel_share=0.05, channel_span=10, least=1)
"""Of the mel frames and bands that pre-training hears."""
TOKENS = SpecialsConfig(specials=(END, "<|im_start|>", "<|im_end|>", *TAGS.specials))
SPOKEN = ("sentence",)
INSTRUCTION = AnsweredTaskConfig(kinds=("instruction",))
TRANSCRIPTION = AskedTaskConfig(kinds=SPOKEN, asks=("Write down what is said.", "Transcribe the recording."))
LOUDNESS = AskedTaskConfig(kinds=SPOKEN, asks=("How loud is it?",), answers=("{energy}",))
REGISTER = AskedTaskConfig(kinds=SPOKEN, asks=("How high is the voice?",), answers=("{register}",))
TAGGED_TRANSCRIPTION = TaggedTaskConfig(kinds=SPOKEN, tags=TaskTags(task="transcribe", style="wo_itn"))
TAGGED_QUESTION = TaggedTaskConfig(
    kinds=("instruction",),
    tags=TaskTags(task="question", written=None, times=None),
    asks=("{question}",),
    answers=("{answer}",),
)


def keyword(style: str) -> TaggedTaskConfig:
    """One word about a recording: the label that its field `style` holds."""
    tags = TaskTags(task="keyword", style=style, known=TAGS)
    return TaggedTaskConfig(kinds=SPOKEN, tags=tags, answers=(f"{{{style}}}",))


def tagged(tasks: MixtureConfig) -> Template:
    """How tasks are asked whose parts are all told by tags."""
    rows = (part.example.tags.spelt for part in tasks.parts if isinstance(part.example, TaggedTaskConfig))
    return QWEN_AUDIO.replace(tags=tuple(dict.fromkeys(mark for spelt in rows for mark in spelt)))


def shares(**tasks: tuple[float, SpeechTaskConfig]) -> MixtureConfig:
    """Tasks by name with the share of each."""
    parts = (PartConfig(name=name, weight=weight, example=task) for name, (weight, task) in tasks.items())
    return MixtureConfig(parts=tuple(parts))


def config(size: str = "tiny", weights: str = "weights", **changes: object) -> SpeechAwareConfig:
    """A size with some fields changed; raises `UserError` for an unknown one.

    `weights`: the folder that holds the parts of the published sizes: `whisper-large-v2` or `whisper-large-v3`, and
    `qwen-7b` with its tokenizer, both with the tags or tokens of clips.
    """
    sizes = CARD.sizes
    require(size in sizes, "Qwen-Audio size", size, f"must be one of {', '.join(sizes)}{nearest(size, sizes)}")
    return (tiny() if size == "tiny" else published(size, weights)).replace(**changes)


def model(size: str) -> SpeechAwareLMConfig:
    """The parts of a size."""
    if size == "tiny":
        encoder: WhisperEncoderConfig | SSLEncoderConfig = log_mel_tiny()
        rows = TOKENS.make().size
        lm = llama(vocabulary=rows, layers=4, width=192, heads=4, kv_heads=4, hidden=512, qkv_bias=True)
    else:
        running = {"dtype": "bfloat16", "remat": True}
        rows, positions = {"qwen-audio": (155_947, 2048), "qwen2-audio": (156_032, 8192)}[size]
        lm = llama("7b", vocabulary=rows, qkv_bias=True, norm_epsilon=1e-5, max_positions=positions, **running)
        encoder = whisper(ENCODERS[size]).encoder.replace(trim=True, final_norm=False, **running)
        encoder = encoder.replace(mel_frames="begun" if size == "qwen2-audio" else "whole")
    pool = PoolAdapterConfig(width=lm.width, dtype=lm.dtype)
    ends = EndsConfig(width=lm.width, dtype=lm.dtype)
    adapter = pool if size == "qwen2-audio" else ChainConfig(parts=(pool, ends))
    return SpeechAwareLMConfig(encoders=(encoder,), adapter=adapter, lm=lm)


def tiny(corpus: CorpusConfig | None = None) -> SpeechAwareConfig:
    """Minutes on two cores: an encoder and a byte LM of 2 M parameters each."""
    whole = model("tiny")
    letters = letters_encoder(whole.encoder)
    lm = text_lm(whole.lm, ("sentence", "instruction"), TOKENS, begin=END, end=END)
    masked = whole.encoder.replace(masks=MASKS)
    tasks = shares(
        transcription=(0.5, TAGGED_TRANSCRIPTION),
        energy=(0.15, keyword("energy")),
        register=(0.15, keyword("register")),
        question=(0.2, TAGGED_QUESTION),
    )
    pretraining = SpeechAwareStageConfig(
        name="pretraining",
        parts=(
            PartSource(path="params/encoder", source="stage:letters", frozen=False, expect=masked),
            PartSource(path="params/lm", source="stage:lm", frozen=False, expect=whole.lm),
        ),
        kept="lm/(blocks|final_norm)",
        adapter=whole.adapter,
        tokens=TOKENS,
        template=tagged(tasks),
        tasks=tasks,
        clip_s=6.0,
        length=256,
        train=TrainConfig(steps=800, evaluate_every=100),
        batches=PipelineConfig(batch=8),
        optimizer=OptimizerConfig(learning_rate=1e-3, warmup_steps=30, betas=(0.9, 0.98), weight_decay=0.05),
    )
    trained = PartSource(path="params/lm", source="stage:pretraining", take="lm", frozen=False, expect=whole.lm)
    chat = chatting(pretraining, trained).replace(
        tasks=shares(
            transcription=(0.4, TRANSCRIPTION),
            energy=(0.1, LOUDNESS),
            register=(0.1, REGISTER),
            instructions=(0.4, INSTRUCTION),
        ),
        length=384,
        train=TrainConfig(steps=400, evaluate_every=100),
    )
    world = WorldConfig(hours=0.8, instruction_hours=0.4, speakers=4, styles=("energy", "register"))
    stages = (letters, lm, pretraining, chat)
    return speech_aware_run("qwen_audio_tiny", corpus or world, stages, decoding=AnswerDecoding(max_new=100))


def published(size: str, weights: str, corpus: CorpusConfig | None = None) -> SpeechAwareConfig:
    """A published size: 500,000 steps of pre-training, 8,000 of chat."""
    whole, first = model(size), size == "qwen-audio"
    ears = PartSource(
        path="params/encoder",
        source=f"{weights}/whisper-{ENCODERS[size]}",
        take="encoder",
        frozen=False,
        expect=whole.encoder.replace(masks=MASKS),
    )
    lm = PartSource(path="frozen/lm", source=f"{weights}/qwen-7b", dtype="bfloat16", expect=whole.lm)
    by_tags = shares(transcription=(0.5, TAGGED_TRANSCRIPTION), question=(0.5, TAGGED_QUESTION))
    asked = shares(transcription=(0.5, TRANSCRIPTION), instructions=(0.5, INSTRUCTION))
    pretraining = SpeechAwareStageConfig(
        name="pretraining",
        parts=(ears, lm),
        adapter=whole.adapter,
        tokens=TokenizerFileConfig(path=f"{weights}/qwen-7b/tokenizer.json"),
        template=tagged(by_tags) if first else QWEN2_AUDIO_BASE,
        tasks=by_tags if first else asked,
        clip_s=30.0,
        length=1024,
        train=TrainConfig(steps=500_000, mesh=MeshConfig(data=1, fsdp=-1, rules="fsdp")),
        batches=PipelineConfig(batch=256),
        optimizer=OptimizerConfig(
            learning_rate=5e-5, final_fraction=0.2, warmup_steps=2_000, betas=(0.9, 0.98), weight_decay=0.05
        ),
    )
    chat = chatting(pretraining, lm.replace(path="params/lm", frozen=False, dtype=None)).replace(
        tasks=asked,
        template=QWEN_AUDIO_CHAT if first else QWEN2_AUDIO,
        train=pretraining.train.replace(steps=8_000),
        optimizer=pretraining.optimizer.replace(learning_rate=1e-5, warmup_steps=400),
    )
    return speech_aware_run(
        size.replace("-", "_"),
        corpus or WorldConfig(hours=100.0, instruction_hours=100.0),
        (pretraining, chat),
        decoding=AnswerDecoding(max_new=256),
    )


def chatting(
    pretraining: SpeechAwareStageConfig, lm: PartSource, template: Template = QWEN_AUDIO_CHAT
) -> SpeechAwareStageConfig:
    """The stage after pre-training: what hears is frozen, the language model learns."""
    encoder = pretraining.parts[0].expect
    assert isinstance(encoder, WhisperEncoderConfig | SSLEncoderConfig)  # for the type checker
    unmasked = encoder.replace(masks=None)
    heard = PartSource(path="frozen/encoder", source="stage:pretraining", take="encoder", expect=unmasked)
    return pretraining.replace(name="chat", parts=(heard, lm), kept=None, goes_on="pretraining", template=template)


def released(folder: str | Path, template: Template = QWEN2_AUDIO) -> SpeechAwareSystem:
    """A folder as it was published, with its `tokenizer.json` in it; `template`: how it is asked."""
    found, params = load(folder)
    require(isinstance(found, SpeechAwareLMConfig), "folder", str(folder), "must hold Qwen-Audio or Qwen2-Audio")
    tokens = TokenizerFileConfig(path=f"{folder}/tokenizer.json").make()
    layout = PromptLayout(tokens, template, found.frames_out, window=found.window)
    variables = {"params": jax.tree.map(jnp.asarray, params)}
    return SpeechAwareSystem(found.make(), variables, layout, decoding=AnswerDecoding(max_new=256))
