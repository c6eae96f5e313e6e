"""Every adapter between the same frozen encoder and the same frozen text model, trained for as long: what is heard?

    python experiments/fetch/real_weights.py weights --models whisper-base stories15m
    python experiments/adapters/run.py runs/adapters

Whisper-base's encoder, trimmed to the clip, and a LLaMA of 15 M parameters with LoRA on queries and values are held to
transcripts of the world in one stage for each adapter, all on the same batches. A head of CTC is trained on the same
frames once, for the adapters that compress by it. Then held-out speakers and sentences: word error rate, with the clip
of another item too, vectors that the text model reads per second of speech, milliseconds of a step, parameters. Leaves
`figures.json` and `adapters.png` beside this file, or in `--out`; with `--adapters` those of the others stay there.
`SLM_JAX_REAL_WEIGHTS` names the folder of the weights, `weights` unless it is set.
"""

import argparse
import json
import os
import statistics
from pathlib import Path
from typing import Any

from slm_jax.adapters.alignformer import AlignFormerConfig
from slm_jax.adapters.chain import ChainConfig
from slm_jax.adapters.conv import ConvAdapterConfig
from slm_jax.adapters.ctc import CTCAdapterConfig, CTCSegmentsConfig
from slm_jax.adapters.linear import LinearAdapterConfig
from slm_jax.adapters.mlp import MLPAdapterConfig
from slm_jax.adapters.pool import PoolAdapterConfig
from slm_jax.adapters.qformer import QFormerAdapterConfig, QFormerConfig
from slm_jax.adapters.rows import RowsConfig
from slm_jax.adapters.transformer import TransformerAdapterConfig
from slm_jax.adapters.window_qformer import WindowQFormerConfig
from slm_jax.audio.plots import plot_points
from slm_jax.core.config import Config
from slm_jax.core.part_source import PartSource
from slm_jax.core.trees import count_parameters
from slm_jax.data.corpus import WorldConfig
from slm_jax.data.examples.speech_tasks import AskedTaskConfig
from slm_jax.data.pipeline import PipelineConfig
from slm_jax.encoders.unit_embedding import UnitEmbeddingConfig
from slm_jax.encoders.whisper import WhisperEncoderConfig
from slm_jax.evaluation.section import JudgeSettings
from slm_jax.judges.tasks import TasksJudge
from slm_jax.nn.lora import LoRAConfig
from slm_jax.quantizers.kmeans import KMeansConfig
from slm_jax.quantizers.postprocess import PostprocessConfig
from slm_jax.serving.speech_aware import AnswerDecoding
from slm_jax.systems.recipes.small_parts import UNKNOWN_SPEAKERS
from slm_jax.systems.recipes.speech_aware import SpeechAwareConfig, speech_aware_run
from slm_jax.text.templates import STORIES, clips_of
from slm_jax.text.tokenizers import TokenizerFileConfig
from slm_jax.training.gradient_stage import GradientStageConfig, trained, without_warmup
from slm_jax.training.loop import TrainConfig
from slm_jax.training.metrics import read_metrics
from slm_jax.training.optimizer import OptimizerConfig
from slm_jax.training.post.clip_units import ClipUnitsConfig
from slm_jax.training.post.speech_aware import SpeechAwareStageConfig
from slm_jax.training.pre.ctc import CTCStageConfig
from slm_jax.training.pre.frame_units import FrameUnitsConfig, LayerOfPartConfig
from slm_jax.training.pre.unit_bpe import UnitBPEConfig
from slm_jax.training.run_folder import RunFolder
from slm_jax.training.stages import StageConfig, StageContext, judging_context, run_stages

WEIGHTS = Path(os.environ.get("SLM_JAX_REAL_WEIGHTS", "weights"))
ENCODER, LM = str(WEIGHTS / "whisper-base"), WEIGHTS / "stories15m"
EARS, READ = 512, 288
"""Channels of the encoder and of the text model."""
CLIP_S, WORDS = 5.0, 48
"""Of the longest clip, and entries of a row that are no speech."""
HEAD = CTCStageConfig(
    name="head",
    encoder=WhisperEncoderConfig(trim=True),
    start_from=ENCODER,
    take="encoder",
    head_only=True,
    with_head=True,
    head_hidden=256,
    longest_s=CLIP_S,
    longest_text=96,
    train=TrainConfig(steps=300, evaluate_every=100),
    batches=PipelineConfig(batch=8),
    optimizer=OptimizerConfig(learning_rate=2e-3, warmup_steps=20, weight_decay=0.0),
)


def segments(rule: str, keep: float) -> CTCSegmentsConfig:
    """Segments by the letters of the head."""
    return CTCSegmentsConfig(vocabulary=HEAD.example.classes, rule=rule, keep=keep, hidden=HEAD.head_hidden)


def qformer(width: int = 256) -> QFormerConfig:
    """A trunk of two layers."""
    return QFormerConfig(
        context_width=EARS, width=width, heads=4, hidden=1024, dropout=0.0, attention_dropout=0.0, norm_epsilon=1e-5
    )


def strided(activation: str, **more: Any) -> ConvAdapterConfig:
    """Two convolutions of stride 2."""
    return ConvAdapterConfig(layers=((EARS, 3, 2, 1),) * 2, activation=activation, projection=READ, **more)


FRAMES_HZ, CLUSTERS, PAIRS = 50, 300, 900
UNITS = FrameUnitsConfig(
    name="clusters",
    features=LayerOfPartConfig(
        part=PartSource(path="frozen/encoder", source=ENCODER, take="encoder", expect=HEAD.encoder), layer=6
    ),
    kmeans=KMeansConfig(clusters=CLUSTERS, iterations=30),
    postprocess=PostprocessConfig(normalise="layer_norm"),
)
BYTE_PAIRS = UnitBPEConfig(name="byte_pairs", units=UNITS.name, vocabulary=PAIRS)
ADAPTERS: dict[str, Config] = {
    "linear, 4 frames": LinearAdapterConfig(width=READ, stack=4),
    "MLP, 5 frames": MLPAdapterConfig(width=READ, hidden=1024, stack=5, norm=True),
    "MLP, 10 frames": MLPAdapterConfig(width=READ, hidden=1024, stack=10, norm=True),
    "pool 4, linear": PoolAdapterConfig(width=READ, pool=4),
    "convolutions": strided("gelu"),
    "gated convolutions": strided("glu", bottleneck=256),
    "4 frames, Transformer": ChainConfig(
        parts=(
            LinearAdapterConfig(width=READ, stack=4),
            TransformerAdapterConfig(width=READ, layers=2, heads=4, hidden=1024, sinusoids=True, dropout=0.0),
        )
    ),
    "CTC, blanks removed": CTCAdapterConfig(width=READ, segments=segments("spoken_frames", 0.6)),
    "CTC, runs averaged": CTCAdapterConfig(width=READ, segments=segments("runs", 0.6)),
    "Q-Former, 32 queries": QFormerAdapterConfig(width=READ, qformer=qformer(), queries=32),
    "window Q-Former, 5 frames": WindowQFormerConfig(width=READ, qformer=qformer(), window=5, tail="pad"),
    "window Q-Former, 17 frames": WindowQFormerConfig(width=READ, qformer=qformer(), window=17, tail="pad"),
    "AlignFormer": AlignFormerConfig(width=READ, qformer=qformer(), segments=segments("spoken_spans", 0.4)),
    "units as words, runs": RowsConfig(width=READ),
    "units as words, byte pairs": RowsConfig(width=READ),
}
READS_UNITS = {
    "units as words, runs": (ClipUnitsConfig(stage=UNITS.name, most=round(0.8 * CLIP_S * FRAMES_HZ)), CLUSTERS),
    "units as words, byte pairs": (ClipUnitsConfig(stage=BYTE_PAIRS.name, most=round(0.6 * CLIP_S * FRAMES_HZ)), PAIRS),
}
"""Adapters without frames: what is read is units of the encoder's last layer, as more words of the text model."""


def options() -> argparse.Namespace:
    """What was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="the run folder")
    parser.add_argument("--data-dir", type=Path, default=Path("data"), help="where prepared corpora are kept")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent, help="where the figures go")
    parser.add_argument("--utterances", type=int, default=100, help="held-out sentences")
    parser.add_argument("--steps", type=int, default=800, help="steps of each adapter")
    parser.add_argument("--adapters", nargs="*", default=list(ADAPTERS), choices=list(ADAPTERS), help="which of them")
    parser.add_argument("--quick", action="store_true", help="a few steps on a few minutes of speech")
    return parser.parse_args()


def stage_of(name: str) -> str:
    """The stage of an adapter."""
    return "answers_" + "".join(c if c.isalnum() else "_" for c in name.lower())


def answering(name: str, steps: int) -> SpeechAwareStageConfig:
    """The stage that trains an adapter and LoRA beside it; everything else is the same for all."""
    adapter: Any = ADAPTERS[name]
    lm = PartSource(path="frozen/lm", source=str(LM))
    encoder = PartSource(path="frozen/encoder", source=ENCODER, take="encoder", expect=HEAD.encoder)
    head = PartSource(path="frozen/adapter/segments/head", source=f"stage:{HEAD.name}", take="head")
    reads: dict[str, Any] = {"parts": (encoder, lm), "cache": True}
    most = int(HEAD.encoder.frame_count(round(CLIP_S * 16_000)))
    if hasattr(adapter, "segments"):
        reads["parts"] = (encoder, head, lm)
    if name in READS_UNITS:
        units, known = READS_UNITS[name]
        table = UnitEmbeddingConfig(units=known, width=READ, init_scale=0.02)
        reads, most = {"parts": (lm,), "units": units, "encoder": table}, units.most or most
    return SpeechAwareStageConfig(
        name=stage_of(name),
        adapter=adapter,
        tokens=TokenizerFileConfig(path=str(LM / "tokenizer.json")),
        template=STORIES,
        tasks=AskedTaskConfig(kinds=("sentence",), asks=()),
        lora=LoRAConfig(targets="lm/.*/attention/(query|value)", rank=16, alpha=32.0),
        clip_s=CLIP_S,
        length=WORDS + int(adapter.frames_out(most)),
        train=TrainConfig(steps=steps, evaluate_every=200),
        batches=PipelineConfig(batch=8),
        optimizer=OptimizerConfig(learning_rate=1e-3, warmup_steps=30, betas=(0.9, 0.98), weight_decay=0.01),
        **reads,
    )


def recipe(asked: argparse.Namespace) -> SpeechAwareConfig:
    """All adapters as stages of one run."""
    stages: list[StageConfig] = [HEAD, UNITS, BYTE_PAIRS, *(answering(name, asked.steps) for name in ADAPTERS)]
    corpus = UNKNOWN_SPEAKERS.replace(hours=1.0)
    if asked.quick:
        corpus = WorldConfig(hours=0.04, speakers=4, split_by="speaker", test_share=0.3, dev_share=0.2)
        stages = [shortened(stage) for stage in stages]
    decoding = AnswerDecoding(max_new=40)
    return speech_aware_run("adapters", corpus, tuple(stages), decoding=decoding)


def shortened(stage: StageConfig) -> StageConfig:
    """The same with three steps, where it has any."""
    if not isinstance(stage, GradientStageConfig):
        return stage
    train = stage.train.replace(steps=3, log_every=1, evaluate_every=None)
    return stage.replace(train=train, optimizer=without_warmup(stage.optimizer))


def measured(config: SpeechAwareConfig, context: StageContext, utterances: int) -> dict[str, Any]:
    """Everything about one adapter."""
    stage, judge = config.answering, TasksJudge(tasks=config.answering.mixture, longest_s=CLIP_S)
    system = config.load(context)
    section = judge.judge(system, context, JudgeSettings(utterances=utterances))
    (said,) = section.figures[judge.name].values()
    asked = judge.asked(stage.mixture.parts[0], context, utterances, config.corpus.rate_hz)
    heard = [one.question.asked for one in asked]
    seconds = sum(clip.seconds for one in heard for clip in clips_of(one))
    lines = read_metrics(context.run.stage(stage.name).path)
    learnt = trained(context.run.stage(stage.name))[1]
    return {
        "wer": said["wer"],
        "wer_interval": said["wer_interval"],
        "wer_other_speech": said["other_speech"]["wer"],
        "wer_other_speech_interval": said["other_speech"]["wer_interval"],
        "vectors_per_s": sum(system.speech_vectors(heard)) / seconds,
        "step_ms": statistics.median([line["step_ms"] for line in lines if "step_ms" in line]),
        "adapter_parameters": count_parameters(learnt["params"]),
        "lora_parameters": count_parameters(learnt["lora"]),
        "row": stage.length,
        "steps": stage.train.steps,
        "samples": section.tables[1].rows[:3],
    }


def table(figures: dict[str, dict[str, Any]]) -> list[str]:
    """The figures as lines of Markdown."""
    head = ("adapter", "WER", "WER, other speech", "vectors/s", "ms a step", "parameters")
    lines = ["| " + " | ".join(head) + " |", "|---" + "|---:" * (len(head) - 1) + "|"]
    for name, one in figures.items():
        low, high = one["wer_interval"]
        cells = (f"{one['wer']:.3f} [{low:.3f}, {high:.3f}]", f"{one['wer_other_speech']:.3f}")
        cost = (f"{one['vectors_per_s']:.1f}", f"{one['step_ms']:.0f}", f"{one['adapter_parameters'] / 1e6:.2f} M")
        lines.append("| " + " | ".join((name, *cells, *cost)) + " |")
    return lines


def main() -> None:
    """Train and judge one adapter after the other; what is known is written at once."""
    asked = options()
    config, run = recipe(asked), RunFolder(asked.run)
    context = StageContext(run, config.corpus, asked.data_dir, say=print)
    names, figures = {stage_of(name): name for name in asked.adapters}, known(asked.out, config)
    for stage, seconds in run_stages(config, context, only=needed(config, list(names))):
        print(f"{stage}: {'done before' if seconds is None else f'{seconds:.0f} s'}", flush=True)
        if stage in names:
            held_out = judging_context(config, run, asked.data_dir, say=print)
            count = 4 if asked.quick else asked.utterances
            figures[names[stage]] = measured(config.replace(answers=stage), held_out, count)
            print(table({names[stage]: figures[names[stage]]})[-1], flush=True)
            keep(figures, asked.out)
    print("\n".join(table(figures)))


def needed(config: SpeechAwareConfig, stages: list[str]) -> list[str]:
    """These stages, behind those that they read."""
    read = {name for stage in stages for name in reads(config, stage)}
    return [stage.name for stage in config.stages if stage.name in read | set(stages)]


def reads(config: SpeechAwareConfig, stage: str) -> set[str]:
    """All stages that one reads, straight or by way of others."""
    straight = config.stage(stage).needs
    return {name for need in straight for name in (need, *reads(config, need))}


def known(out: Path, config: SpeechAwareConfig) -> dict[str, dict[str, Any]]:
    """Figures that stand there already, of adapters that were trained for as long as those of this run."""
    file = out / "figures.json"
    found = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    steps = {name: config.stage(stage_of(name)).train.steps for name in ADAPTERS}
    return {name: one for name, one in found.items() if one["steps"] == steps.get(name)}


def keep(figures: dict[str, dict[str, Any]], out: Path) -> None:
    """Figures and plot of the adapters that are done, in the order of `ADAPTERS`."""
    figures = {name: figures[name] for name in ADAPTERS if name in figures}
    out.mkdir(parents=True, exist_ok=True)
    (out / "figures.json").write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    points = {name: (one["vectors_per_s"], one["wer"], one["wer_interval"]) for name, one in figures.items()}
    plot_points(out / "adapters.png", points, "vectors per second of speech", "word error rate")


if __name__ == "__main__":
    main()
