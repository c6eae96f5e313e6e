"""What of an answer comes by the vectors of a clip, what by its transcript: each exchanged for another clip's.

    python experiments/desta/vectors.py runs/desta_real

Held-out items of the tasks that the run is judged by, asked four times: as they are, with the vectors of another clip,
with the words of another clip, with both of the other. Leaves `vectors.json` beside this file, or in `--out`.
"""

import argparse
import dataclasses
import json
from pathlib import Path
from typing import Any

from slm_jax.core.messages import Conversation, Message, Speech
from slm_jax.judges.asking import replies_to, text_of, turned
from slm_jax.judges.tasks import Asked, TasksJudge
from slm_jax.systems.recipes.speech_aware import SpeechAwareConfig
from slm_jax.text.templates import clips_of
from slm_jax.training.run_folder import RunFolder
from slm_jax.training.stages import judging_context, read_run_config

CONDITIONS = {
    "as it is": (False, False),
    "other vectors": (True, False),
    "other words": (False, True),
    "other clip": (True, True),
}
"""Name -> whether the vectors and the words are those of the next item."""
KEPT = ("questions", "wer", "wer_interval", "exact", "exact_interval")


def options() -> argparse.Namespace:
    """What was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="the run folder")
    parser.add_argument("--data-dir", type=Path, default=Path("data"), help="where prepared corpora are kept")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent, help="where the figures go")
    parser.add_argument("--utterances", type=int, default=100, help="held-out items of each task")
    return parser.parse_args()


def with_clip(said: Conversation, clip: Speech) -> Conversation:
    """The conversation, which has one clip, with another in its place."""

    def own(message: Message) -> Message:
        return Message(message.role, tuple(clip if isinstance(part, Speech) else part for part in message.parts))

    return tuple(map(own, said))


def asked_with(asked: list[Asked], words: list[str], vectors: bool, written: bool) -> list[Conversation]:
    """Every question with its own clip or the next item's, and with its own words or the next item's."""
    clips = [clips_of(one.question.asked)[0] for one in asked]
    heard = turned(clips) if vectors else clips
    read = turned(words) if written else words
    pairs = zip(asked, heard, read, strict=True)
    return [with_clip(one.question.asked, dataclasses.replace(clip, words=text)) for one, clip, text in pairs]


def measured(config: SpeechAwareConfig, asked: argparse.Namespace, run: RunFolder) -> dict[str, Any]:
    """Figures of every task and condition."""
    context = judging_context(config, run, asked.data_dir, say=print)
    system = config.load(context)
    (judge,) = [judge for judge in config.judges if isinstance(judge, TasksJudge)]
    found: dict[str, Any] = {}
    for part in judge.tasks.parts:
        items = judge.asked(part, context, asked.utterances, system.rate_hz)
        words = system.writer.texts([clips_of(one.question.asked)[0].samples for one in items])
        found[part.name] = {}
        for name, changed in CONDITIONS.items():
            replies = replies_to(system, asked_with(items, words, *changed))
            figures = judge.figures(items, list(map(text_of, replies)))
            found[part.name][name] = {key: figures[key] for key in KEPT}
            print(part.name, name, found[part.name][name], flush=True)
    return found


def main() -> None:
    """Ask and write."""
    asked = options()
    run = RunFolder(asked.run)
    config = read_run_config(run)
    if not isinstance(config, SpeechAwareConfig):
        raise SystemExit(f"{asked.run} holds a {type(config).__name__}")
    figures = measured(config, asked, run)
    asked.out.mkdir(parents=True, exist_ok=True)
    (asked.out / "vectors.json").write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
