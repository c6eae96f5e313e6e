"""What is heard against what was written down first, what was written truly, and other speech: the same held-out items.

    python experiments/speech_aware_real/compare.py runs/real

Four answers to each item of the test split: of the run's own system; of the cascade, where Whisper writes down the clip
and the language model of the stage `written` answers to that; of this language model given the true words, which no
recogniser can beat; and of the run's system when it hears another item's clip. Leaves `figures.json`, `samples.json`
and `compared.png` beside this file, or in `--out`. `--seed 1` takes the items from a world of other voices than the
run's, without what training has heard said: enough of each kind where the run's own test split is small.
"""

import argparse
import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from slm_jax.audio.plots import plot_intervals
from slm_jax.core.part_source import PartSource
from slm_jax.data.corpus import WorldConfig, prepare_corpus
from slm_jax.data.examples.open_book import OpenBookTaskConfig
from slm_jax.data.examples.speech_tasks import SpeechTaskConfig
from slm_jax.data.examples.written_tasks import WrittenTaskConfig
from slm_jax.data.joined import Subset
from slm_jax.data.mixture import MixtureConfig
from slm_jax.judges.asking import replies_to, text_of
from slm_jax.judges.tasks import Asked, TasksJudge
from slm_jax.serving.cascade import Cascade
from slm_jax.serving.transcriber import Transcription, load_transcriber
from slm_jax.systems.recipes.speech_aware import SpeechAwareConfig
from slm_jax.training.run_folder import RunFolder
from slm_jax.training.stages import StageContext, judging_context, read_run_config

WRITTEN = "written"
"""Name of the stage that learnt the tasks in writing."""
SHOWN = 12
KINDS = ("sentence", "question_answer", "instruction")
METRICS = {"transcription": "wer", "questions": "exact", "instructions": "holds"}
"""What a task is judged by first."""
Figures = dict[str, dict[str, Any]]


def options() -> argparse.Namespace:
    """What was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="the run folder")
    parser.add_argument("--data-dir", type=Path, default=Path("data"), help="where prepared corpora are kept")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent, help="where the figures go")
    parser.add_argument("--utterances", type=int, default=100, help="held-out items of each task")
    parser.add_argument("--seed", type=int, help="items of another world: the seed of its voices and texts")
    return parser.parse_args()


@dataclasses.dataclass(frozen=True)
class AnotherWorld(StageContext):
    """A context whose test split is of a corpus of its own, without the items whose texts are in `heard`."""

    heard: frozenset[str] = frozenset()

    def source(self, split: str, kinds: tuple[str, ...] | None = None) -> Any:
        """Items that nobody has heard."""
        source = super().source(split, kinds)
        return Subset(source, [place for place in range(len(source)) if source[place]["id"] not in self.heard])


def another_world(config: SpeechAwareConfig, context: StageContext, seed: int) -> AnotherWorld:
    """About 150 held-out items of each kind, in voices of another draw."""
    assert isinstance(config.corpus, WorldConfig)  # for the type checker
    corpus = config.corpus.replace(
        seed=seed, hours=0.15, question_hours=0.25, instruction_hours=0.3, test_share=0.9, dev_share=0.05
    )
    prepare_corpus(corpus, context.data_dir)
    trained = StageContext(context.run, config.corpus, context.data_dir).source("train", KINDS)
    heard = frozenset(trained[place]["id"] for place in range(len(trained)))
    return AnotherWorld(context.run, corpus, context.data_dir, say=print, heard=heard)


def recogniser(config: SpeechAwareConfig) -> str:
    """The folder of the model whose encoder is heard with."""
    (source,) = (part.source for part in config.answering.parts if _is_encoder(part))
    return source


def told_by(tasks: MixtureConfig, seed: int) -> MixtureConfig:
    """The tasks with notes of another world, where other things are true: nothing of it can be known by heart."""
    parts = [
        part.replace(example=part.example.replace(seed=seed)) if isinstance(part.example, OpenBookTaskConfig) else part
        for part in tasks.parts
    ]
    return tasks.replace(parts=tuple(parts))


def compared(
    config: SpeechAwareConfig, tasks: MixtureConfig, context: StageContext, items: StageContext, count: int
) -> tuple[Figures, list[dict[str, str]]]:
    """Figures by way of answering and task, and some of `items` with what each way said."""
    reader = config.replace(answers=WRITTEN).load(context)
    cascade = Cascade(load_transcriber(recogniser(config)), reader, Transcription(language="en", max_new=64))
    ways = {"heard": config.load(context), "cascade": cascade, "true words": reader}
    heard = TasksJudge(tasks=tasks, longest_s=config.answering.clip_s)
    read = TasksJudge(tasks=written(config, tasks))
    figures, samples = dict[str, dict[str, Any]](), list[dict[str, str]]()
    for name, system in ways.items():
        judge = read if name == "true words" else heard
        figures[name] = {}
        for part in judge.tasks.parts:
            asked = judge.asked(part, items, count, config.corpus.rate_hz)
            figures[name][part.name], said = answered(judge, system, asked, with_control=name == "heard")
            context.say(f"{name}, {part.name}: {figures[name][part.name]}")
            rows = zip(asked[:SHOWN], said, strict=False)
            samples += [
                {"task": part.name, "answer": one.question.answer, "way": name, "said": words} for one, words in rows
            ]
    return figures, samples


def written(config: SpeechAwareConfig, tasks: MixtureConfig) -> MixtureConfig:
    """The tasks in writing, of the same items."""
    parts = [
        part.replace(example=WrittenTaskConfig(task=part.example, longest_s=config.answering.clip_s))
        for part in tasks.parts
        if isinstance(part.example, SpeechTaskConfig)
    ]
    return MixtureConfig(parts=tuple(parts))


def answered(
    judge: TasksJudge, system: Any, asked: Sequence[Asked], with_control: bool
) -> tuple[dict[str, Any], list[str]]:
    """Figures, with those of other speech where that is wanted, and what was said."""
    if with_control:
        figures, rows = judge.scored(system, asked)
        return figures, [said for _, said, _ in rows]
    said = [text_of(reply) for reply in replies_to(system, [one.question.asked for one in asked])]
    return judge.figures(asked, said), said


def bars(figures: Figures, tasks: MixtureConfig) -> dict[str, dict[str, tuple[float, Any]]]:
    """For the plot: task -> way -> (value, interval)."""
    found = dict[str, dict[str, tuple[float, Any]]]()
    for part in tasks.parts:
        metric = METRICS[part.name]
        rows = {way: of_task[part.name] for way, of_task in figures.items()}
        rows["heard, other speech"] = figures["heard"][part.name]["other_speech"]
        found[f"{part.name}: {metric}"] = {way: (row[metric], row[f"{metric}_interval"]) for way, row in rows.items()}
    return found


def table(figures: Figures, tasks: MixtureConfig) -> list[str]:
    """The figures as lines of Markdown."""
    panels = bars(figures, tasks)
    ways = list(next(iter(panels.values())))
    lines = ["| | " + " | ".join(panels) + " |", "|---" * (len(panels) + 1) + "|"]
    for way in ways:
        cells = (panels[name][way] for name in panels)
        lines.append(f"| {way} | " + " | ".join(f"{value:.3f} [{a:.3f}, {b:.3f}]" for value, (a, b) in cells) + " |")
    return lines


def _is_encoder(part: PartSource) -> bool:
    return part.path.endswith("/encoder")


def main() -> None:
    """Ask everybody, write."""
    asked = options()
    run = RunFolder(asked.run)
    config = read_run_config(run)
    assert isinstance(config, SpeechAwareConfig), "the run is none of config.py"
    context = judging_context(config, run, asked.data_dir, say=print)
    tasks, items = config.answering.mixture, context
    if asked.seed is not None:
        tasks, items = told_by(tasks, asked.seed), another_world(config, context, asked.seed)
    figures, samples = compared(config, tasks, context, items, asked.utterances)
    asked.out.mkdir(parents=True, exist_ok=True)
    for name, value in (("figures", figures), ("samples", samples)):
        (asked.out / f"{name}.json").write_text(
            json.dumps(value, indent=1, ensure_ascii=False) + "\n", encoding="utf-8"
        )
    plot_intervals(asked.out / "compared.png", bars(figures, config.answering.mixture))
    print("\n".join(table(figures, config.answering.mixture)))


if __name__ == "__main__":
    main()
