"""Tasks told by tags, and what is left of each task after the model has been made to chat.

    python experiments/qwen_audio/run.py runs/qwen_audio
    python experiments/qwen_audio/run.py runs/qwen_audio_real --real
    python experiments/qwen_audio/run.py runs/qwen_audio_voice --real --voice
    python experiments/qwen_audio/run.py runs/qwen_audio_both --real --both

Trains the tiny Qwen-Audio, or with `--real` the one of `real.py` (with `--voice` of `voice.py`, with `--both` of
`both.py`), and judges it twice on held-out items: after pre-training, asked by rows of tags, and after the chat stage,
asked in words; the latter also by tags, which it has not read since. Leaves `figures.json` (`real.json`, `voice.json`,
`both.json`) beside this file, or in `--out`.
"""

import argparse
import json
import runpy
from pathlib import Path
from typing import Any

from slm_jax.data.corpus import WorldConfig
from slm_jax.evaluation.section import JudgeSettings
from slm_jax.judges.tasks import TasksJudge
from slm_jax.systems.recipes.small_parts import UNKNOWN_SPEAKERS
from slm_jax.systems.recipes.speech_aware import SpeechAwareConfig
from slm_jax.systems.speech_aware import qwen_audio
from slm_jax.training.gradient_stage import GradientStageConfig, without_warmup
from slm_jax.training.run_folder import RunFolder
from slm_jax.training.stages import StageContext, judging_context, run_stages

WORLD = UNKNOWN_SPEAKERS.replace(hours=1.2, instruction_hours=0.8, styles=("energy", "register"))
ARMS = {"tags": ("pretraining", "pretraining"), "words": ("chat", "chat"), "tags after chat": ("chat", "pretraining")}
"""Name -> whose weights are asked, and the stage whose tasks and template are asked."""


def options() -> argparse.Namespace:
    """What was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="the run folder")
    parser.add_argument("--data-dir", type=Path, default=Path("data"), help="where prepared corpora are kept")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent, help="where the figures go")
    parser.add_argument("--utterances", type=int, default=60, help="held-out items of each task")
    parser.add_argument("--real", action="store_true", help="real parts instead of the tiny twin's own")
    parser.add_argument("--voice", action="store_true", help="with --real: labels of the voice count more")
    parser.add_argument("--quick", action="store_true", help="a few steps on a few minutes of speech")
    parser.add_argument("--both", action="store_true", help="with --real: words first, then labels beside them")
    return parser.parse_args()


def recipe(quick: bool, name: str) -> SpeechAwareConfig:
    """The tiny twin ("figures"), or one on real parts; `quick`: three steps of each stage."""
    config: SpeechAwareConfig = qwen_audio.config("tiny", corpus=WORLD)
    if name != "figures":
        config = runpy.run_path(str(Path(__file__).with_name(f"{name}.py")))["prepared"]()
    if not quick:
        return config
    assert isinstance(config.corpus, WorldConfig)  # for the type checker
    short = {"hours": 0.03, "instruction_hours": 0.03, "speakers": 3, "test_share": 0.3, "dev_share": 0.2}
    corpus = WorldConfig(styles=config.corpus.styles, **short)
    return config.replace(corpus=corpus, stages=tuple(map(shortened, config.stages)))


def shortened(stage: GradientStageConfig) -> GradientStageConfig:
    """The same with three steps."""
    train = stage.train.replace(steps=3, log_every=1, evaluate_every=None)
    return stage.replace(train=train, optimizer=without_warmup(stage.optimizer))


def measured(config: SpeechAwareConfig, weights: str, asked: str, context: StageContext, count: int) -> dict[str, Any]:
    """Every task of the stage `asked`, put to the weights of another."""
    stage = config.replace(answers=asked).answering
    system = config.replace(answers=weights).load(context)
    layout = stage.layout(system.model.config, stage.tokens.make())
    judge = TasksJudge(tasks=stage.mixture, longest_s=stage.clip_s)
    put = type(system)(system.model, system.variables, layout, system.rate_hz, system.decoding)
    return judge.judge(put, context, JudgeSettings(utterances=count)).figures[judge.name]


def main() -> None:
    """Train, judge, write."""
    asked = options()
    name = "both" if asked.both else "voice" if asked.voice else "real" if asked.real else "figures"
    config = recipe(asked.quick, name)
    context = StageContext(RunFolder(asked.run), config.corpus, asked.data_dir, say=print)
    for stage, seconds in run_stages(config, context):
        print(f"{stage}: {'done before' if seconds is None else f'{seconds:.0f} s'}")
    held_out = judging_context(config, RunFolder(asked.run), asked.data_dir, say=print)
    count = 2 if asked.quick else asked.utterances
    figures = {arm: measured(config, *stages, held_out, count) for arm, stages in ARMS.items()}
    asked.out.mkdir(parents=True, exist_ok=True)
    (asked.out / f"{name}.json").write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    print("\n".join(table(figures)))


def table(figures: dict[str, dict[str, Any]]) -> list[str]:
    """The figures as lines of Markdown."""
    lines = ["| asked by | task | WER | exact | exact, other speech |", "|---|---|---:|---:|---:|"]
    for arm, tasks in figures.items():
        for task, one in tasks.items():
            cells = (one["wer"], one["exact"], one["other_speech"]["exact"])
            lines.append(f"| {arm} | {task} | " + " | ".join(f"{cell:.3f}" for cell in cells) + " |")
    return lines


if __name__ == "__main__":
    main()
