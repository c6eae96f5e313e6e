"""What LTU-AS's twin answers, task by task, beside the same with other speech and other transcripts.

    python experiments/ltu_as/judge.py runs/ltu_as_real
    python experiments/ltu_as/judge.py runs/ltu_as_real --arms "by Whisper" --tasks text --utterances 20

Three arms on held-out items of speakers nobody heard: transcripts as in training (the world's own), those that the
run's transcriber (Whisper-base) writes, and none. In the control of the first arm the clip is another item's and the
transcript stays; in that of the second the transcriber hears the other clip, too. Leaves `real.json` beside this file,
or in `--out`; arms and tasks that are not asked for stay there as they are.
"""

import argparse
import json
from pathlib import Path

from slm_jax.data.examples.transcript_tasks import TranscriptTaskConfig
from slm_jax.data.mixture import MixtureConfig
from slm_jax.evaluation.section import JudgeSettings
from slm_jax.judges.tasks import TasksJudge
from slm_jax.systems.recipes.transcribed import TranscribedConfig
from slm_jax.systems.speech_aware import ltu_as
from slm_jax.training.run_folder import RunFolder
from slm_jax.training.stages import judging_context, read_run_config

ARMS = ("heard", "by Whisper", "without a transcript")


def options() -> argparse.Namespace:
    """What was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="the run folder")
    parser.add_argument("--data-dir", type=Path, default=Path("data"), help="where prepared corpora are kept")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent, help="where the figures go")
    parser.add_argument("--utterances", type=int, default=40, help="held-out items of each task")
    parser.add_argument("--stage", default=ltu_as.THIRD, help="whose weights are asked")
    parser.add_argument("--arms", nargs="+", default=list(ARMS), choices=ARMS, help="which of them")
    names = [part.name for part in ltu_as.EVERYTHING.parts]
    parser.add_argument("--tasks", nargs="+", default=names, choices=names, help="which of them")
    return parser.parse_args()


def tasks_of(arm: str, names: list[str]) -> MixtureConfig:
    """The questions of these names, in the first arm with the corpus' own words beside them."""
    parts = [part for part in ltu_as.EVERYTHING.parts if part.name in names]
    if arm != ARMS[0]:
        parts = [
            part.replace(example=part.example.task) for part in parts if isinstance(part.example, TranscriptTaskConfig)
        ]
    return MixtureConfig(parts=tuple(parts))


def main() -> None:
    """Judge, write what is new into the file."""
    asked = options()
    run = RunFolder(asked.run)
    config = read_run_config(run)
    assert isinstance(config, TranscribedConfig)  # for the type checker
    context = judging_context(config, run, asked.data_dir, say=print)
    config = config.replace(answers=asked.stage)
    system = config.load(context)
    asked.out.mkdir(parents=True, exist_ok=True)
    file = asked.out / "real.json"
    found = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    for arm in asked.arms:
        judge = TasksJudge(tasks=tasks_of(arm, asked.tasks), longest_s=config.answering.clip_s)
        put = system if arm == "by Whisper" else system.listener
        figures = judge.judge(put, context, JudgeSettings(utterances=asked.utterances)).figures[judge.name]
        found[arm] = found.get(arm, {}) | figures
        file.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
        print(
            arm, json.dumps({task: (one["exact"], one["other_speech"].get("exact")) for task, one in figures.items()})
        )


if __name__ == "__main__":
    main()
