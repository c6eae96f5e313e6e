"""Does alignment pay? None, implicit, explicit and both in front of one task, for as many steps in all.

    python experiments/fetch/real_weights.py weights --models whisper-base stories15m
    python experiments/alignment/run.py runs/alignment

Frozen Whisper-base, four frames to a vector, a frozen LLaMA of 15 M parameters. The task is to write down what is said,
with LoRA on queries and values. Every arm has the same number of training steps: half of them align, without LoRA, and
the other half learn the task; "none" learns the task all the time.

    implicit   the continuation of a clip is to be what the language model writes behind its transcript
    explicit   the vectors of a clip are to be those of its words: cosines, words placed by CTC's forced alignment
    both       the two in one loss

What is prepared once for all budgets and seeds (the targets, a head of CTC on the same frames, the alignment) is told
apart, in seconds. Held-out speakers and sentences: word error rate, with the clip of another item too, bootstrap over
sentences. Leaves `figures.json` and `alignment.png` beside this file, or in `--out`; arms that are not asked for stay
there. `SLM_JAX_REAL_WEIGHTS` names the folder of the weights, `weights` unless it is set.
"""

import argparse
import dataclasses
import itertools
import json
import os
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from slm_jax.adapters.linear import LinearAdapterConfig
from slm_jax.audio.plots import plot_points
from slm_jax.core.part_source import PartSource
from slm_jax.data.corpus import WorldConfig
from slm_jax.data.examples.described_tasks import DescribedTaskConfig
from slm_jax.data.examples.speech_tasks import AskedTaskConfig
from slm_jax.data.pipeline import PipelineConfig
from slm_jax.encoders.whisper import WhisperEncoderConfig
from slm_jax.evaluation.section import JudgeSettings
from slm_jax.generation.sampling import SamplingConfig
from slm_jax.judges.tasks import TasksJudge
from slm_jax.nn.lora import LoRAConfig
from slm_jax.objectives.token_distance import TokenDistanceConfig
from slm_jax.serving.speech_aware import AnswerDecoding
from slm_jax.systems.recipes.small_parts import UNKNOWN_SPEAKERS
from slm_jax.systems.recipes.speech_aware import SpeechAwareConfig, speech_aware_run
from slm_jax.text.templates import STORIES
from slm_jax.text.tokenizers import TokenizerFileConfig
from slm_jax.training.gradient_stage import GradientStageConfig, without_warmup
from slm_jax.training.loop import TrainConfig
from slm_jax.training.metrics import read_metrics
from slm_jax.training.optimizer import OptimizerConfig
from slm_jax.training.post.alignment import AlignmentStageConfig
from slm_jax.training.post.lm_targets import LMTargetsConfig
from slm_jax.training.post.speech_aware import SpeechAwareStageConfig
from slm_jax.training.pre.ctc import CTCStageConfig
from slm_jax.training.pre.word_times import WordTimesConfig
from slm_jax.training.run_folder import RunFolder
from slm_jax.training.stages import StageConfig, StageContext, judging_context, run_stages

WEIGHTS = Path(os.environ.get("SLM_JAX_REAL_WEIGHTS", "weights"))
ENCODER, LM = str(WEIGHTS / "whisper-base"), WEIGHTS / "stories15m"
READ, CLIP_S = 288, 5.0
ARMS, BUDGETS, SEEDS = ("none", "implicit", "explicit", "both"), (160, 320), (0, 1, 2)
TASK = AskedTaskConfig(kinds=("sentence",), asks=())
lm = PartSource(path="frozen/lm", source=str(LM))
tokens = TokenizerFileConfig(path=str(LM / "tokenizer.json"))
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
    train=TrainConfig(steps=120),
    batches=PipelineConfig(batch=8),
    optimizer=OptimizerConfig(learning_rate=2e-3, warmup_steps=20, weight_decay=0.0),
)
TIMES = WordTimesConfig(name="times", stage=HEAD.name, kinds=TASK.kinds)
TARGETS = LMTargetsConfig(
    name="targets",
    part=lm,
    tokens=tokens,
    template=STORIES,
    tasks=DescribedTaskConfig(task=TASK),
    sampling=SamplingConfig(max_new=24, temperature=0.0),
)
PREPARED = {"none": (), "implicit": (TARGETS,), "explicit": (HEAD, TIMES), "both": (HEAD, TIMES, TARGETS)}
"""What an arm needs besides its own stages."""
ALL_PREPARED = (HEAD.name, TIMES.name, TARGETS.name)


class Arm(NamedTuple):
    """One training: `budget` steps in all."""

    name: str
    budget: int
    seed: int

    @property
    def stage(self) -> str:
        """The stage that learns the task."""
        return f"{self.name}_{self.budget}_{self.seed}"

    @property
    def stages(self) -> tuple[SpeechAwareStageConfig, ...]:
        """Alignment where there is any, then the task."""
        if self.name == "none":
            return (self._learns(self.budget),)
        first = self._aligns(self.budget // 2)
        return first, self._learns(self.budget - self.budget // 2).replace(goes_on=first.name)

    def _learns(self, steps: int) -> SpeechAwareStageConfig:
        return SpeechAwareStageConfig(
            name=self.stage,
            parts=(PartSource(path="frozen/encoder", source=ENCODER, take="encoder", expect=HEAD.encoder), lm),
            adapter=LinearAdapterConfig(width=READ, stack=4),
            tokens=tokens,
            template=STORIES,
            tasks=TASK,
            lora=LoRAConfig(targets="lm/.*/attention/(query|value)", rank=16, alpha=32.0),
            clip_s=CLIP_S,
            length=112,
            cache=True,
            train=TrainConfig(steps=steps, seed=self.seed, log_every=10),
            batches=PipelineConfig(batch=8, seed=self.seed),
            optimizer=OptimizerConfig(learning_rate=1e-3, warmup_steps=20, betas=(0.9, 0.98), weight_decay=0.01),
        )

    def _aligns(self, steps: int) -> AlignmentStageConfig:
        near = TokenDistanceConfig(distance="cosine") if self.name != "implicit" else None
        plain = self._learns(steps).replace(
            name=f"{self.stage}_aligned", lora=None, tasks=TASK if self.name == "explicit" else TARGETS.learnt
        )
        fields = {field.name: getattr(plain, field.name) for field in dataclasses.fields(plain)}
        return AlignmentStageConfig(
            **fields,
            near=near,
            answers=0.0 if self.name == "explicit" else 1.0,
            times=None if near is None else TIMES.name,
        )


def options() -> argparse.Namespace:
    """What was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="the run folder")
    parser.add_argument("--data-dir", type=Path, default=Path("data"), help="where prepared corpora are kept")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent, help="where the figures go")
    parser.add_argument("--utterances", type=int, default=100, help="held-out sentences")
    parser.add_argument(
        "--budgets", type=int, nargs="+", default=list(BUDGETS), choices=BUDGETS, help="steps of an arm"
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=list(SEEDS), choices=SEEDS)
    parser.add_argument("--arms", nargs="+", default=list(ARMS), choices=ARMS)
    parser.add_argument("--hours", type=float, default=0.4, help="of sentences of the world")
    parser.add_argument("--quick", action="store_true", help="a few steps on a few minutes of speech")
    return parser.parse_args()


def arms_of(budgets: Sequence[int], seeds: Sequence[int], names: Sequence[str]) -> list[Arm]:
    """All of these, the arms of one budget and seed together."""
    return [Arm(name, *rest) for *rest, name in itertools.product(budgets, seeds, names)]


def recipe(asked: argparse.Namespace) -> SpeechAwareConfig:
    """All arms there are as stages of one run, behind what is prepared for them."""
    every = [stage for arm in arms_of(BUDGETS, SEEDS, ARMS) for stage in arm.stages]
    stages: list[StageConfig] = [HEAD, TIMES, TARGETS, *every]
    corpus = UNKNOWN_SPEAKERS.replace(hours=asked.hours, styles=("rate", "energy"))
    if asked.quick:
        corpus = WorldConfig(hours=0.04, speakers=4, split_by="speaker", test_share=0.3, dev_share=0.2)
        stages = [shortened(stage) for stage in stages]
    return speech_aware_run("alignment", corpus, tuple(stages), decoding=AnswerDecoding(max_new=40))


def shortened(stage: StageConfig) -> StageConfig:
    """The same with three steps, where it has any."""
    if not isinstance(stage, GradientStageConfig):
        return stage
    train = stage.train.replace(steps=3, log_every=1, evaluate_every=None)
    return stage.replace(train=train, optimizer=without_warmup(stage.optimizer))


def measured(arm: Arm, config: SpeechAwareConfig, context: StageContext, utterances: int) -> dict[str, Any]:
    """Everything about one arm."""
    config = config.replace(answers=arm.stage)
    judge = TasksJudge(tasks=config.answering.mixture, longest_s=CLIP_S)
    section = judge.judge(config.load(context), context, JudgeSettings(utterances=utterances))
    (said,) = section.figures[judge.name].values()
    lines = {stage.name: read_metrics(context.run.stage(stage.name).path) for stage in arm.stages}
    return {
        "arm": arm.name,
        "budget": arm.budget,
        "seed": arm.seed,
        "steps": [config.stage(stage.name).train.steps for stage in arm.stages],  # type: ignore[attr-defined]
        "questions": said["questions"],
        "wer": said["wer"],
        "wer_interval": said["wer_interval"],
        "wer_other_speech": said["other_speech"]["wer"],
        "step_ms": {
            name: statistics.median([line["step_ms"] for line in own if "step_ms" in line])
            for name, own in lines.items()
        },
        "losses": {name: [round(line["loss"], 3) for line in own if "loss" in line] for name, own in lines.items()},
        "samples": section.tables[1].rows[:3],
    }


def table(figures: list[dict[str, Any]], prepared: dict[str, float]) -> list[str]:
    """The figures as lines of Markdown: a row for each arm and budget, over its seeds."""
    lines = ["| arm | steps | seeds | WER | with other speech | prepared once |", "|---|---:|---:|---:|---:|---:|"]
    for (budget, name), rows in grouped(figures).items():
        wers = [row["wer"] for row in rows]
        shown = f"{statistics.mean(wers):.3f}"
        if len(rows) == 1:
            shown += " [{:.3f}, {:.3f}]".format(*rows[0]["wer_interval"])
        else:
            shown += f" ({min(wers):.3f} to {max(wers):.3f})"
        other = statistics.mean([row["wer_other_speech"] for row in rows])
        cost = sum(prepared.get(stage.name, 0.0) for stage in PREPARED[name])
        lines.append(f"| {name} | {budget} | {len(rows)} | {shown} | {other:.3f} | {cost:.0f} s |")
    return lines


def grouped(figures: list[dict[str, Any]]) -> dict[tuple[int, str], list[dict[str, Any]]]:
    """Rows of one budget and arm, in the order of `ARMS`."""
    keys = sorted({(row["budget"], ARMS.index(row["arm"])) for row in figures})
    return {
        (budget, ARMS[place]): [row for row in figures if (row["budget"], row["arm"]) == (budget, ARMS[place])]
        for budget, place in keys
    }


def main() -> None:
    """Train and judge one arm after the other; what is known is written at once."""
    asked = options()
    config, run, kept = recipe(asked), RunFolder(asked.run), known(asked.out)
    context = StageContext(run, config.corpus, asked.data_dir, say=print)
    names = {arm.stage: arm for arm in arms_of(asked.budgets, asked.seeds, asked.arms)}
    wanted = {stage.name for arm in names.values() for stage in (*PREPARED[arm.name], *arm.stages)}
    for stage, seconds in run_stages(config, context, only=[one.name for one in config.stages if one.name in wanted]):
        print(f"{stage}: {'done before' if seconds is None else f'{seconds:.0f} s'}", flush=True)
        if stage not in names:
            kept["prepared_s"] |= {stage: round(seconds)} if seconds is not None and stage in ALL_PREPARED else {}
            continue
        held_out = judging_context(config, run, asked.data_dir, say=print)
        found = measured(names[stage], config, held_out, 4 if asked.quick else asked.utterances)
        kept["arms"] = [*(row for row in kept["arms"] if place_of(row) != place_of(found)), found]
        keep(kept, asked.out)
        print(table([found], kept["prepared_s"])[-1], flush=True)
    print("\n".join(table(kept["arms"], kept["prepared_s"])))


def place_of(row: dict[str, Any]) -> tuple[str, int, int]:
    """Which training a row is of."""
    return row["arm"], row["budget"], row["seed"]


def known(out: Path) -> dict[str, Any]:
    """Figures that stand there already."""
    file = out / "figures.json"
    return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {"prepared_s": {}, "arms": []}


def keep(kept: dict[str, Any], out: Path) -> None:
    """Figures and plot."""
    out.mkdir(parents=True, exist_ok=True)
    (out / "figures.json").write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")
    points = {}
    for (budget, name), rows in grouped(kept["arms"]).items():
        wers = [row["wer"] for row in rows]
        spread = rows[0]["wer_interval"] if len(rows) == 1 else (min(wers), max(wers))
        points[f"{name}, {budget}"] = (float(budget), statistics.mean(wers), spread)
    plot_points(out / "alignment.png", points, "steps", "word error rate")


if __name__ == "__main__":
    main()
