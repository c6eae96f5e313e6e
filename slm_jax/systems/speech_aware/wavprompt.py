"""WavPrompt: speech as a prompt of a frozen text LM, learnt from a few examples (Gao et al. 2022, arXiv 2203.15863).

    clip -> wav2vec 2.0, tuned -> one vector for every 8 frames -> frozen GPT-2 -> words

What is special. The text model never changes: the encoder and a convolution (kernel = stride = 8, 6.25 vectors per
second) learn to write prompts for it, by transcribing. Tasks are then shown in the prompt: [clip, what is asked,
answer] several times, then [clip, what is asked]; here that is a conversation of several turns. Nothing stands before
the first clip, nothing but the words themselves between clip, question and answer, and one end token is learnt.

Positions. The original trains with positions that count a row's padding of the speech, and generates with positions
that do not; the two differ in padded batches, and agree for one row. Here padding is never between entries: every row
has the positions of that row alone, which are those of both. As many vectors are real as the convolution makes of
real frames; the original counts one more where a window is partly padding.

What differs. The loss is a mean over words, not a sum over words by sentences. A batch is 64 utterances, 800 s at the
mean length of 12.5 s, where the original takes ten times as many as fit in 80 s; long utterances are left out by their
seconds, not their frames. The convolutions on the waveform get no gradient, as published (`feature_gradient` 0), and
stay as they are. That the text model drops nothing while it is frozen is an interpretation.

Sizes: "base" (wav2vec 2.0 base and GPT-2 small). "tiny" trains its parts itself, without any download: an encoder that
knows acoustic units, and a byte LM of GPT-2's form with rotary positions, since it never reads rows as long as prompts
with examples are.
"""

from slm_jax.adapters.conv import ConvAdapterConfig
from slm_jax.core.errors import nearest, require
from slm_jax.core.part_source import PartSource
from slm_jax.data.corpus import CorpusConfig, WorldConfig
from slm_jax.data.examples.speech_tasks import AskedTaskConfig
from slm_jax.data.pipeline import PipelineConfig
from slm_jax.encoders.span_masks import SpanMasksConfig
from slm_jax.encoders.ssl_presets import log_mel_tiny, wav2vec2_base
from slm_jax.sequence_models.presets import gpt2
from slm_jax.serving.speech_aware import AnswerDecoding
from slm_jax.systems.card import KeptFigure, SystemCard
from slm_jax.systems.recipes.small_parts import LM, UNITS, text_lm, units_encoder
from slm_jax.systems.recipes.speech_aware import SpeechAwareConfig, speech_aware_run
from slm_jax.text.marked_tokens import SpecialsConfig
from slm_jax.text.templates import Template
from slm_jax.text.tokenizers import TokenizerFileConfig
from slm_jax.training.loop import TrainConfig
from slm_jax.training.optimizer import OptimizerConfig
from slm_jax.training.post.speech_aware import SpeechAwareStageConfig

RATE = 8
"""Frames that become one vector."""
END = "<|endoftext|>"
PROMPT = Template(assistant=("", END), earlier_end="")
"""Clip, question, answer and nothing else."""
TRANSCRIPTION = AskedTaskConfig(kinds=("sentence",), asks=("what did the speaker say? ",))
REAL = "experiments/wavprompt/real.json"
CARD = SystemCard(
    name="WavPrompt",
    paper="Gao et al. 2022",
    sizes=("tiny", "base"),
    reads=("speech", "text"),
    writes=("text",),
    counted="answers",
    plans=("wavprompt_base_v5e",),
    figures=(
        KeptFigure(words="WER, speakers nobody heard", file=REAL, place=("tasks", "task", "wer")),
        KeptFigure(words="with other speech", file=REAL, place=("tasks", "task", "other_speech", "wer")),
    ),
)


def config(size: str = "tiny", weights: str = "weights", **changes: object) -> SpeechAwareConfig:
    """A size of WavPrompt with some fields changed; raises `UserError` for an unknown size.

    `weights`: the folder that holds the parts of the published size, `wav2vec2-base` (without a
    `preprocessor_config.json` that would normalise the waveform) and `gpt2`.
    """
    sizes = CARD.sizes
    require(size in sizes, "WavPrompt size", size, f"must be one of {', '.join(sizes)}{nearest(size, sizes)}")
    return (tiny() if size == "tiny" else base(weights)).replace(**changes)


def tiny(corpus: CorpusConfig = WorldConfig(hours=0.8)) -> SpeechAwareConfig:
    """Minutes on two cores: an encoder of 2 M parameters, tuned, and a frozen byte LM of 2 M."""
    encoder = log_mel_tiny()
    tuned = encoder.replace(feature_gradient=0.0)
    tokens = SpecialsConfig(specials=(END,))
    lm = gpt2("small", vocabulary=264, layers=4, width=192, heads=4, hidden=768, positions="rope", max_positions=None)
    lm = lm.replace(dropout=0.0, attention_dropout=0.0)
    answers = SpeechAwareStageConfig(
        name="answers",
        parts=(
            PartSource(path="params/encoder", source=f"stage:{UNITS}", expect=tuned, frozen=False),
            PartSource(path="frozen/lm", source=f"stage:{LM}", expect=lm),
        ),
        adapter=shrinking(encoder.width, lm.width),
        template=PROMPT,
        tokens=tokens,
        tasks=TRANSCRIPTION,
        clip_s=6.0,
        length=192,
        train=TrainConfig(steps=900, evaluate_every=100),
        batches=PipelineConfig(batch=8),
        optimizer=tri_stage(1e-3, 900),
    )
    stages = (*units_encoder(encoder), text_lm(lm, ("sentence",), tokens, begin=END, end=END), answers)
    return speech_aware_run("wavprompt_tiny", corpus, stages, decoding=AnswerDecoding(max_new=96))


def base(weights: str, corpus: CorpusConfig = WorldConfig(hours=100.0)) -> SpeechAwareConfig:
    """The published size with the recipe of the released code: 100,000 updates on 100 hours."""
    encoder = wav2vec2_base().replace(
        normalise_waveform=False,
        feature_gradient=0.0,
        masks=SpanMasksConfig(share=0.65, channel_share=0.25, channel_span=64),
        activation_dropout=0.1,
        layer_drop=0.1,
        dtype="bfloat16",
    )
    lm = gpt2("small", dropout=0.0, attention_dropout=0.0, dtype="bfloat16")
    answers = SpeechAwareStageConfig(
        name="answers",
        parts=(
            PartSource(path="params/encoder", source=f"{weights}/wav2vec2-base", expect=encoder, frozen=False),
            PartSource(path="frozen/lm", source=f"{weights}/gpt2", expect=lm),
        ),
        adapter=shrinking(encoder.width, lm.width),
        template=PROMPT,
        tokens=TokenizerFileConfig(path=f"{weights}/gpt2/tokenizer.json"),
        tasks=TRANSCRIPTION,
        clip_s=25.0,
        length=320,
        train=TrainConfig(steps=100_000, accumulate=8),
        batches=PipelineConfig(batch=64),
        optimizer=tri_stage(2e-4, 100_000),
    )
    return speech_aware_run("wavprompt_base", corpus, (answers,), decoding=AnswerDecoding(max_new=200))


def shrinking(width: int, lm_width: int) -> ConvAdapterConfig:
    """A vector for every 8 frames, with a map behind it only where widths differ."""
    projection = None if width == lm_width else lm_width
    return ConvAdapterConfig(layers=((width, RATE, RATE, 0),), projection=projection)


def tri_stage(learning_rate: float, steps: int) -> OptimizerConfig:
    """A tenth of the updates up from a hundredth of the rate, four tenths there, the rest down to a twentieth."""
    return OptimizerConfig(
        name="adam",
        learning_rate=learning_rate,
        schedule="exponential",
        warmup_steps=steps // 10,
        start_fraction=0.01,
        hold_steps=4 * steps // 10,
        final_fraction=0.05,
        betas=(0.9, 0.98),
        eps=1e-8,
        clip=None,
    )
