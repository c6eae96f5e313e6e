"""WavLLM: two encoders, and LoRA that counts as much as the instruction says (Hu et al. 2024, arXiv 2404.00656).

    clip -> Whisper's encoder      -> convolutions, bottleneck, map | side by side
    clip -> WavLM, layers weighed  -> convolutions, bottleneck, map | -> map -> LLaMA 2 chat with LoRA -> words
    instruction -> LLaMA 2 without LoRA -> prompt adapter -> a factor for each output of LoRA's update

What is special. One encoder knows what is said, one who speaks and how. The curriculum: (1) single tasks, with LoRA as
it is; (2) several tasks asked at once beside them, with the prompt adapter, which lets LoRA count more where speech is
to be understood and less where the language model knows by itself what to do. The factors are read off the bare
instruction once, and every step of decoding takes them as they are.

What differs. Clips of more than 30 s are refused; the released code cuts them for Whisper and joins what it makes. Only
inference was released, in which nothing can be asked of a model without the prompt adapter: stage 1 here is LoRA by
alpha / rank, which is 1. Padding has no effect; in the released code what WavLM makes of a batch's padding is cut by
the shorter stream alone. Interpretations: in stage 2 all of what stage 1 trained goes on learning, and the factors
begin about 1, as stage 1 left LoRA; rates, steps and batches; one map (`audio_proj`) of the released file is not used
by its own code and is left aside. What is asked, and what of, is the world's.

Sizes: "7b" (Whisper large-v2, WavLM base, LLaMA-2-7B-chat; `interop.wavllm` reads and writes the released file), and
"tiny", which trains its parts itself: an encoder that CTC taught letters, one that knows acoustic units, and a byte LM.
"""

from typing import Any

from slm_jax.adapters.chain import ChainConfig
from slm_jax.adapters.conv import ConvAdapterConfig
from slm_jax.adapters.layer_mix import LayerMixConfig
from slm_jax.adapters.linear import LinearAdapterConfig
from slm_jax.adapters.prompt_scale import PromptScaleConfig
from slm_jax.adapters.streams import StreamsConfig
from slm_jax.assemblies.whisper import whisper
from slm_jax.core.errors import nearest, require
from slm_jax.core.part_source import PartSource
from slm_jax.data.corpus import CorpusConfig, WorldConfig
from slm_jax.data.examples.speech_tasks import (
    AnsweredTaskConfig,
    AskedTaskConfig,
    ComposedTaskConfig,
    SpeechTaskConfig,
)
from slm_jax.data.mixture import MixtureConfig, PartConfig
from slm_jax.data.pipeline import PipelineConfig
from slm_jax.encoders.layer_states import LayersConfig
from slm_jax.encoders.ssl import SSLEncoderConfig
from slm_jax.encoders.ssl_presets import log_mel_tiny, wavlm_base
from slm_jax.encoders.whisper import WhisperEncoderConfig
from slm_jax.judges.losses import LossesJudge
from slm_jax.judges.tasks import TasksJudge
from slm_jax.nn.lora import LoRAConfig
from slm_jax.parallel.mesh import MeshConfig
from slm_jax.sequence_models.presets import llama
from slm_jax.serving.speech_aware import AnswerDecoding
from slm_jax.systems.card import SystemCard
from slm_jax.systems.recipes.small_parts import LETTERS, LM, UNITS, letters_encoder, text_lm, units_encoder
from slm_jax.systems.recipes.speech_aware import SpeechAwareConfig, speech_aware_run
from slm_jax.text.marked_tokens import SpecialsConfig
from slm_jax.text.templates import WAVLLM
from slm_jax.text.tokenizers import TokenizerFileConfig
from slm_jax.training.kept import KeptSpeechConfig
from slm_jax.training.loop import TrainConfig
from slm_jax.training.optimizer import OptimizerConfig
from slm_jax.training.post.speech_aware import SpeechAwareStageConfig
from slm_jax.training.stages import StageConfig

LORA = LoRAConfig(targets="lm/.*/attention/(query|key|value|out)", rank=32, alpha=32.0, dropout=0.1)
FIRST, SECOND = "single", "mixed"
HEARD = (None, LayersConfig(first=True))
"""The last layer of the first encoder, all layers of the second and what its first one reads."""
"""Names of the stages."""
KINDS = ("sentence", "instruction")
STYLES = ("rate", "energy")
SPOKEN = ("sentence",)
TRANSCRIPTION = AskedTaskConfig(kinds=SPOKEN, asks=("Write down what is said.", "Transcribe the recording."))
LOUDNESS = AskedTaskConfig(kinds=SPOKEN, asks=("How loud is it?", "Is it soft, normal or loud?"), answers=("{energy}",))
RATE = AskedTaskConfig(
    kinds=SPOKEN, asks=("How fast is it?", "Is it slow, normal or fast?"), answers=("{speaking_rate}",)
)
INSTRUCTIONS = AnsweredTaskConfig(kinds=("instruction",))
SEVERAL = ComposedTaskConfig(kinds=SPOKEN, tasks=(TRANSCRIPTION, LOUDNESS, RATE))
"""Independent instructions at once, answered in their order."""
CARD = SystemCard(
    name="WavLLM",
    paper="Hu et al. 2024",
    sizes=("tiny", "7b"),
    reads=("speech", "text"),
    writes=("text",),
    counted=SECOND,
)


def shares(**tasks: tuple[float, SpeechTaskConfig]) -> MixtureConfig:
    """Tasks by name with the share of each."""
    parts = (PartConfig(name=name, weight=weight, example=task) for name, (weight, task) in tasks.items())
    return MixtureConfig(parts=tuple(parts))


SINGLE = shares(
    transcription=(0.5, TRANSCRIPTION),
    loudness=(0.15, LOUDNESS),
    rate=(0.15, RATE),
    instructions=(0.2, INSTRUCTIONS),
)
MIXED = shares(
    transcription=(0.3, TRANSCRIPTION),
    loudness=(0.1, LOUDNESS),
    rate=(0.1, RATE),
    instructions=(0.2, INSTRUCTIONS),
    several=(0.3, SEVERAL),
)


def config(size: str = "tiny", weights: str = "weights", **changes: object) -> SpeechAwareConfig:
    """A size of WavLLM with some fields changed; raises `UserError` for an unknown size.

    `weights`: the folder that holds the parts of the published size: `whisper-large-v2`, `wavlm-base`,
    `llama-2-7b-chat`.
    """
    sizes = CARD.sizes
    require(size in sizes, "WavLLM size", size, f"must be one of {', '.join(sizes)}{nearest(size, sizes)}")
    return (tiny() if size == "tiny" else published(weights)).replace(**changes)


def streams(first: Any, second: Any, channels: tuple[int, int, int] = (1024, 512, 2048)) -> StreamsConfig:
    """An adapter for each encoder, four frames to one: channels of the convolutions, the bottleneck, the map."""
    wide, bottleneck, out = channels

    def adapter(inner: int) -> ConvAdapterConfig:
        layers = ((inner, 3, 2, 1), (wide, 3, 2, 1))
        return ConvAdapterConfig(layers=layers, activation="glu", bottleneck=bottleneck, projection=out)

    mix = LayerMixConfig(layers=second.layers + 1, width=second.width)
    return StreamsConfig(
        first=adapter(first.width // 2), second=ChainConfig(parts=(mix, adapter(max(1, second.width // 3))))
    )


def tiny(corpus: CorpusConfig | None = None) -> SpeechAwareConfig:
    """Minutes on two cores: two encoders and a byte LM of 2 M parameters each."""
    encoder = log_mel_tiny()
    lm = llama("7b", vocabulary=264, layers=4, width=192, heads=4, kv_heads=4, hidden=512)
    first = SpeechAwareStageConfig(
        name=FIRST,
        parts=(
            PartSource(path="frozen/encoder", source=f"stage:{LETTERS}", expect=encoder),
            PartSource(path="frozen/encoder_1", source=f"stage:{UNITS}", expect=encoder),
            PartSource(path="frozen/lm", source=f"stage:{LM}", expect=lm),
        ),
        hears=HEARD,
        join=streams(encoder, encoder, (192, 96, 192)),
        adapter=LinearAdapterConfig(width=lm.width),
        lora=LORA.replace(rank=16, alpha=16.0),
        template=WAVLLM.replace(default_system=None),
        tokens=SpecialsConfig(),
        tasks=SINGLE,
        clip_s=6.0,
        length=384,
        train=TrainConfig(steps=600, evaluate_every=100),
        batches=PipelineConfig(batch=8),
        optimizer=OptimizerConfig(learning_rate=2e-3, warmup_steps=30, betas=(0.9, 0.98)),
    )
    stages = (
        letters_encoder(encoder),
        *units_encoder(encoder),
        text_lm(lm, KINDS),
        *two_stages(first, PromptScaleConfig(width=lm.width, hidden=96), 300, 160),
    )
    world = WorldConfig(hours=0.6, instruction_hours=0.3, speakers=4, styles=STYLES)
    return whole_run("wavllm_tiny", corpus or world, stages, AnswerDecoding(max_new=120))


def ears() -> tuple[WhisperEncoderConfig, SSLEncoderConfig]:
    """The two encoders of the published size."""
    half: dict[str, Any] = {"dtype": "bfloat16"}
    return whisper("large-v2").encoder.replace(cut=True, **half), wavlm_base().replace(**half)


def published(weights: str, corpus: CorpusConfig | None = None) -> SpeechAwareConfig:
    """The published size: Whisper large-v2 and WavLM base, 12.5 vectors a second, LLaMA-2-7B-chat."""
    half: dict[str, Any] = {"dtype": "bfloat16"}
    first_ear, second_ear = ears()
    lm, chat = llama("2-7b", norm_epsilon=1e-6, remat=True, **half), f"{weights}/llama-2-7b-chat"
    whispering = PartSource(
        path="frozen/encoder", source=f"{weights}/whisper-large-v2", take="encoder", expect=first_ear, **half
    )
    first = SpeechAwareStageConfig(
        name=FIRST,
        parts=(
            whispering,
            PartSource(path="frozen/encoder_1", source=f"{weights}/wavlm-base", expect=second_ear, **half),
            PartSource(path="frozen/lm", source=chat, expect=lm, **half),
        ),
        hears=HEARD,
        join=streams(first_ear, second_ear),
        adapter=LinearAdapterConfig(width=lm.width),
        lora=LORA,
        template=WAVLLM,
        tokens=TokenizerFileConfig(path=f"{chat}/tokenizer.json"),
        tasks=SINGLE,
        clip_s=30.0,
        length=768,
        train=TrainConfig(steps=100_000, mesh=MeshConfig(data=1, fsdp=-1, rules="fsdp")),
        batches=PipelineConfig(batch=128),
        optimizer=OptimizerConfig(learning_rate=1e-4, warmup_steps=2_000, betas=(0.9, 0.98)),
    )
    world = WorldConfig(hours=100.0, instruction_hours=20.0, speakers=100, styles=STYLES)
    decoding = AnswerDecoding(max_new=512, temperature=0.5)
    stages = two_stages(first, PromptScaleConfig(width=lm.width), 50_000, 256)
    return whole_run("wavllm_7b", corpus or world, stages, decoding)


def two_stages(
    first: SpeechAwareStageConfig, scale: PromptScaleConfig, steps: int, asked: int
) -> tuple[SpeechAwareStageConfig, ...]:
    """Single tasks, then several at once beside them with the prompt adapter, for instructions of `asked` ids."""
    second = first.replace(
        name=SECOND,
        goes_on=first.name,
        tasks=MIXED,
        prompt_scale=scale,
        asked=asked,
        train=first.train.replace(steps=steps),
        optimizer=first.optimizer.replace(learning_rate=first.optimizer.learning_rate / 2),
    )
    return first, second


def whole_run(
    name: str, corpus: CorpusConfig, stages: tuple[StageConfig, ...], decoding: AnswerDecoding
) -> SpeechAwareConfig:
    """The run of these stages, judged by what stage 2 taught."""
    keeps = KeptSpeechConfig(splits=("test",), kinds=KINDS)
    judges = (TasksJudge(tasks=MIXED), LossesJudge())
    return speech_aware_run(name, corpus, stages, decoding=decoding, judges=judges, keeps=keeps)
