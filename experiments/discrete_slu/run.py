"""The three compressions of DiscreteSLU on the same data; the last without transcripts, and without an adapter.

    python experiments/discrete_slu/run.py runs/discrete_slu

One run folder: encoder, units, byte pairs and text LM are trained once, then one stage of answers for each arm from
the same weights. Every arm is judged on the same held-out items of all tasks; beside that stand ids and vectors per
second of the clips, and how long a step took. Leaves `figures.json` beside this file, or in `--out`.
"""

import argparse
import json
import statistics
from pathlib import Path
from typing import Any

from slm_jax.data.corpus import WorldConfig
from slm_jax.evaluation.section import JudgeSettings
from slm_jax.judges.tasks import TasksJudge
from slm_jax.systems.recipes.small_parts import UNKNOWN_SPEAKERS
from slm_jax.systems.recipes.speech_aware import SpeechAwareConfig
from slm_jax.systems.speech_aware import discrete_slu
from slm_jax.text.templates import clips_of
from slm_jax.training.gradient_stage import GradientStageConfig, without_warmup
from slm_jax.training.metrics import read_metrics
from slm_jax.training.run_folder import RunFolder
from slm_jax.training.stages import StageConfig, StageContext, judging_context, run_stages

WORLD = UNKNOWN_SPEAKERS.replace(hours=1.0, question_hours=0.4, instruction_hours=0.6)
ARMS = {
    "none": discrete_slu.config("tiny", "none"),
    "dedup": discrete_slu.config("tiny", "dedup"),
    "bpe": discrete_slu.config("tiny", "bpe"),
    "bpe_no_transcripts": discrete_slu.config("tiny", "bpe", transcripts=False),
    "bpe_rows": discrete_slu.config("tiny", "bpe", adapter=False),
}


def options() -> argparse.Namespace:
    """What was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="the run folder")
    parser.add_argument("--data-dir", type=Path, default=Path("data"), help="where prepared corpora are kept")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent, help="where the figures go")
    parser.add_argument("--utterances", type=int, default=60, help="held-out items of each task")
    parser.add_argument("--quick", action="store_true", help="a few steps on a few minutes of speech")
    return parser.parse_args()


def recipe(quick: bool) -> SpeechAwareConfig:
    """All arms as stages of one run, which share what comes before them."""
    whole = ARMS["bpe"]
    answers = [config.stage("answers").replace(name=f"answers_{arm}") for arm, config in ARMS.items()]
    stages: tuple[StageConfig, ...] = (*(s for s in whole.stages if s.name != "answers"), *answers)
    corpus = WORLD
    if quick:
        stages = tuple(map(shortened, stages))
        corpus = WorldConfig(
            hours=0.03, question_hours=0.02, instruction_hours=0.02, speakers=3, test_share=0.3, dev_share=0.2
        )
    return whole.replace(name="discrete_slu", corpus=corpus, stages=stages, answers=answers[0].name)


def shortened(stage: StageConfig) -> StageConfig:
    """The same with three steps, where it has any."""
    if not isinstance(stage, GradientStageConfig):
        return stage
    train = stage.train.replace(steps=3, log_every=1, evaluate_every=None)
    return stage.replace(train=train, optimizer=without_warmup(stage.optimizer))


def density(config: SpeechAwareConfig, context: StageContext, judge: TasksJudge, count: int) -> dict[str, float]:
    """Ids and vectors per second of held-out clips."""
    sequences, adapter = config.answering.sequences(context), config.answering.adapter
    asked = [one for part in judge.tasks.parts for one in judge.asked(part, context, count, config.corpus.rate_hz)]
    clips = [clip for one in asked for clip in clips_of(one.question.asked)]
    ids = [len(row) for row in sequences.of_clips([clip.samples for clip in clips])]
    seconds = sum(clip.seconds for clip in clips)
    return {"ids_per_s": sum(ids) / seconds, "vectors_per_s": sum(map(adapter.frames_out, ids)) / seconds}


def measured(config: SpeechAwareConfig, context: StageContext, utterances: int) -> dict[str, Any]:
    """Everything about one arm."""
    judge = next(judge for judge in config.judges if isinstance(judge, TasksJudge))
    section = judge.judge(config.load(context), context, JudgeSettings(utterances=utterances))
    lines = read_metrics(context.run.stage(config.answers).path)
    steps = [line["step_ms"] for line in lines if "step_ms" in line]
    return {
        **density(config, context, judge, utterances),
        "row": config.answering.length,
        "step_ms": statistics.median(steps),
        **section.figures[judge.name],
    }


def main() -> None:
    """Train, judge, write."""
    asked = options()
    config = recipe(asked.quick)
    context = StageContext(RunFolder(asked.run), config.corpus, asked.data_dir, say=print)
    for name, seconds in run_stages(config, context):
        print(f"{name}: {'done before' if seconds is None else f'{seconds:.0f} s'}")
    held_out = judging_context(config, RunFolder(asked.run), asked.data_dir, say=print)
    figures = {
        arm: measured(config.replace(answers=f"answers_{arm}"), held_out, 2 if asked.quick else asked.utterances)
        for arm in ARMS
    }
    asked.out.mkdir(parents=True, exist_ok=True)
    (asked.out / "figures.json").write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    print("\n".join(table(figures)))


def table(figures: dict[str, dict[str, Any]]) -> list[str]:
    """The figures as lines of Markdown."""
    head = ("arm", "ids/s", "vectors/s", "step ms", "WER", "questions exact", "instructions exact", "WER, other speech")
    lines = ["| " + " | ".join(head) + " |", "|---" + "|---:" * (len(head) - 1) + "|"]
    for arm, one in figures.items():
        said = one["transcription"]
        rates = [said["wer"], one["questions"]["exact"], one["instructions"]["exact"], said["other_speech"]["wer"]]
        cost = [f"{one['ids_per_s']:.1f}", f"{one['vectors_per_s']:.1f}", f"{one['step_ms']:.0f}"]
        cells = [arm, *cost, *("–" if rate is None else f"{rate:.3f}" for rate in rates)]
        lines.append("| " + " | ".join(cells) + " |")
    return lines


if __name__ == "__main__":
    main()
