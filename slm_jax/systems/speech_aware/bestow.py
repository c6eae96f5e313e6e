"""BESTOW: the words of a text LM listen to speech before it reads them (Chen et al. 2024, arXiv 2406.19954).

    words -> embeddings -> [self-attention, cross-attention to speech] x 2 -> + embeddings -> LM with LoRA -> words
    clip -> FastConformer -> Conformer layers, a map ----^

What is special. Speech takes no place in the rows of the language model, whose length is that of the words alone. At
each word cross-attention picks from all of the speech so far, so that reading and writing are one policy: offline all
of a clip is read first; BESTOW-S writes after some chunks and goes on reading (`nn.pacing`: wait-k, or a few words for
every chunk). The language model is frozen with LoRA on all its maps; encoder, adapter and cross-attention are trained,
on answers alone.

Streaming. What words listen to has to be there when a chunk is heard and must not change later. A FastConformer with
`chunk` does that by itself ("tiny"); one that sees whole clips is made to hear chunk by chunk, each encoded anew with
some seconds before it (`encoders.rolling`; "large"). Training masks for each word what is not read by then, with paces
drawn row by row; decoding sees the same by its cache, a session (`serving.listening_session`) by what there is.

What differs. The released code masks with -1e4 where we mask with what no softmax sees, which a clip of padding alone
would tell. Its end of an answer is `[EOG]`, ours that of the template. `audio_ratio`, which blends in words that did
not listen, is not there. Paper and code do not say which paces BESTOW-S trains with, nor how many ids a chunk gets:
those here are guesses, as is the second stage itself.

Sizes: "large" is the config of the released code, FastConformer Large and a GPT of 1.1 B (TinyLlama is what the paper
is said to have); the adapter's strided factor is 1, as in later configs (the first ones have 8 on top of 8).
"tiny" trains its parts itself, without any download: a streaming FastConformer at 25 Hz that CTC taught letters, and a
byte LM. Words of "tiny" know where in the speech they look by sinusoids, and what is added to them begins quietly.
"""

from typing import Any

from slm_jax.adapters.conformer import ConformerAdapterConfig
from slm_jax.core.errors import nearest, require
from slm_jax.core.part_source import PartSource
from slm_jax.data.corpus import CorpusConfig, WorldConfig
from slm_jax.data.examples.speech_tasks import AskedTaskConfig
from slm_jax.data.pipeline import PipelineConfig
from slm_jax.encoders.fastconformer import fastconformer, fastconformer_tiny
from slm_jax.judges.losses import LossesJudge
from slm_jax.judges.paces import PacesJudge
from slm_jax.judges.tasks import TasksJudge
from slm_jax.nn.conformer import ConformerShape
from slm_jax.nn.lora import LoRAConfig
from slm_jax.nn.pacing import PaceConfig, fixed_chunk, wait_k
from slm_jax.parallel.mesh import MeshConfig
from slm_jax.sequence_models.listener import ListenerConfig
from slm_jax.sequence_models.presets import llama
from slm_jax.serving.speech_aware import AnswerDecoding
from slm_jax.systems.card import KeptFigure, SystemCard
from slm_jax.systems.recipes.small_parts import LETTERS, LM, letters_encoder, text_lm
from slm_jax.systems.recipes.speech_aware import SpeechAwareConfig, speech_aware_run
from slm_jax.text.marked_tokens import SpecialsConfig
from slm_jax.text.templates import LLAMA2, PLAIN
from slm_jax.text.tokenizers import TokenizerFileConfig
from slm_jax.training.loop import TrainConfig
from slm_jax.training.optimizer import OptimizerConfig
from slm_jax.training.post.speech_aware import SpeechAwareStageConfig
from slm_jax.training.stages import StageConfig

LORA = LoRAConfig(targets="lm/.*/(attention/(query|key|value|out)|mlp/(gate|up|down))", rank=32, alpha=32.0)
TRANSCRIPTION = AskedTaskConfig(
    kinds=("sentence",), asks=("Transcribe the spoken content.", "Write down what is said.")
)
REAL, EARLY = "experiments/bestow/real.json", "wait 1, ids 2 of 8 frames"
CARD = SystemCard(
    name="BESTOW",
    paper="Chen et al. 2024",
    sizes=("tiny", "large"),
    reads=("speech", "text"),
    writes=("text",),
    counted="answers",
    figures=(
        KeptFigure(words="WER, speakers nobody heard", file=REAL, place=("tasks", "task", "wer")),
        KeptFigure(words="with other speech", file=REAL, place=("tasks", "task", "other_speech", "wer")),
        KeptFigure(words="written 0.94 s behind", file=REAL, place=("paces", "task", EARLY, "wer")),
    ),
)


def config(size: str = "tiny", weights: str = "weights", **changes: object) -> SpeechAwareConfig:
    """A size of BESTOW with some fields changed; raises `UserError` for an unknown size.

    `weights`: the folder that holds the parts of the published size, `fastconformer-large` and `tinyllama-1.1b`.
    """
    sizes = CARD.sizes
    require(size in sizes, "BESTOW size", size, f"must be one of {', '.join(sizes)}{nearest(size, sizes)}")
    return (tiny() if size == "tiny" else large(weights)).replace(**changes)


def tiny(corpus: CorpusConfig = WorldConfig(hours=0.8)) -> SpeechAwareConfig:
    """An encoder of 2 M parameters that hears 0.4 s at a time, a byte LM of 2 M whose words listen."""
    encoder = fastconformer_tiny()
    lm = llama("7b", vocabulary=264, layers=4, width=192, heads=4, kv_heads=4, hidden=512)
    assert encoder.chunk is not None  # for the type checker
    inner = ConformerShape(
        layers=1,
        width=144,
        heads=4,
        hidden=288,
        norm="layer",
        chunk=encoder.chunk,
        left=encoder.left,
        dropout=0.0,
        attention_dropout=0.0,
        activation_dropout=0.0,
    )
    answers = SpeechAwareStageConfig(
        name="answers",
        parts=(
            PartSource(path="frozen/encoder", source=f"stage:{LETTERS}", expect=encoder),
            PartSource(path="frozen/lm", source=f"stage:{LM}", expect=lm),
        ),
        adapter=ConformerAdapterConfig(width=lm.width, inner=inner),
        listener=ListenerConfig(width=lm.width, heads=4, sinusoids=True, gain=0.1, dropout=0.0, init_scale=0.06),
        lora=LORA.replace(rank=8, alpha=16.0),
        template=PLAIN,
        tokens=SpecialsConfig(),
        tasks=TRANSCRIPTION,
        clip_s=6.0,
        length=160,
        train=TrainConfig(steps=900, evaluate_every=100),
        batches=PipelineConfig(batch=8),
        optimizer=OptimizerConfig(learning_rate=1e-3, warmup_steps=50, betas=(0.9, 0.98), weight_decay=0.01),
    )
    paces = (fixed_chunk(encoder.chunk, 6), PaceConfig(chunk=encoder.chunk, wait=3, tokens=6), None)
    stages = (letters_encoder(encoder), text_lm(lm, ("sentence",)), *two_stages(answers, paces, 300))
    return whole_run("bestow_tiny", corpus, stages, paces[:2], AnswerDecoding(max_new=96))


def large(weights: str, corpus: CorpusConfig = WorldConfig(hours=100.0)) -> SpeechAwareConfig:
    """The released code's config. Steps, batch and rate are guesses: it names none that a run would stop at."""
    half: dict[str, Any] = {"dtype": "bfloat16"}
    encoder = fastconformer("large", **half)
    shape = {"layers": 22, "width": 2048, "heads": 32, "kv_heads": 4, "hidden": 5632, "norm_epsilon": 1e-5}
    lm = llama("7b", **shape, remat=True, **half)
    answers = SpeechAwareStageConfig(
        name="answers",
        parts=(
            PartSource(path="params/encoder", source=f"{weights}/fastconformer-large", expect=encoder, frozen=False),
            PartSource(path="frozen/lm", source=f"{weights}/tinyllama-1.1b", expect=lm, **half),
        ),
        adapter=ConformerAdapterConfig(width=lm.width, **half),
        listener=ListenerConfig(width=lm.width, **half),
        lora=LORA,
        template=LLAMA2.replace(speech=("", "")),
        tokens=TokenizerFileConfig(path=f"{weights}/tinyllama-1.1b/tokenizer.json"),
        tasks=TRANSCRIPTION,
        clip_s=20.0,
        length=256,
        train=TrainConfig(steps=100_000, mesh=MeshConfig(data=1, fsdp=-1, rules="fsdp")),
        batches=PipelineConfig(batch=128),
        optimizer=OptimizerConfig(learning_rate=1e-4, warmup_steps=2_500, betas=(0.9, 0.98), weight_decay=1e-3),
    )
    answers, streaming = two_stages(answers, (wait_k(3, 14), fixed_chunk(14, 4), None), 20_000)
    stages = (answers, streaming.replace(rolling=(1.12, 5.6)))
    return whole_run("bestow_large", corpus, stages, (wait_k(3, 14), fixed_chunk(14, 4)), AnswerDecoding(max_new=200))


def two_stages(
    answers: SpeechAwareStageConfig, paces: tuple[PaceConfig | None, ...], steps: int
) -> tuple[SpeechAwareStageConfig, SpeechAwareStageConfig]:
    """The stage that reads whole clips, and one that goes on from it while each row draws a pace."""
    train = answers.train.replace(steps=steps)
    return answers, answers.replace(name="streaming", goes_on=answers.name, paces=paces, train=train)


def whole_run(
    name: str,
    corpus: CorpusConfig,
    stages: tuple[StageConfig, ...],
    paces: tuple[PaceConfig, ...],
    decoding: AnswerDecoding,
) -> SpeechAwareConfig:
    """The run of these stages, judged offline and at `paces`."""
    run = speech_aware_run(name, corpus, stages, decoding=decoding)
    last = run.answering
    judges = (
        TasksJudge(tasks=last.mixture, longest_s=last.clip_s),
        PacesJudge(tasks=last.mixture, longest_s=last.clip_s, paces=paces),
        LossesJudge(),
    )
    return run.replace(judges=judges)
