"""What the judge of turns asks, and what a system says meanwhile, in the folders of Full-Duplex-Bench."""

from pathlib import Path
from typing import Any

import numpy as np

from slm_jax.core.messages import spoken
from slm_jax.data.benchmarks.full_duplex import read_input, samples_below, write_input, write_output
from slm_jax.evaluation.section import Lacking
from slm_jax.evaluation.turn_taking import voiced_spans
from slm_jax.judges.answers import answered
from slm_jax.judges.asking import Item, items_of, replies_to, text_of
from slm_jax.judges.turns import Heard, TurnsJudge, interrupted, paused, question, require_streams
from slm_jax.training.stages import StageContext

TASKS = {"asked": "smooth_turn_taking", "paused": "pause_handling", "interrupted": "user_interruption"}
"""How a question is asked by the judge of turns -> the benchmark's task."""
CONTEXT_GAP_S = 1.0
"""Between a question and the one that interrupts its answer (`judges.turns.interrupted`)."""


def write_turns(
    folder: str | Path, judge: TurnsJudge, system: Any, context: StageContext, count: int, words: bool = True
) -> dict[str, int]:
    """Ask the judge's held-out questions in its three ways and write `TASK/ID/`; samples of each task.

    `words`: write `output.json` of what the system itself wrote, an estimate that the benchmark's recognizer overwrites
    (`data.benchmarks.full_duplex.chunks_of`). A paused question ends with its last word, since whoever speaks in such a
    sample at all has taken the turn. Raises `Lacking` as the judge does.
    """
    how = _silent_for(system, judge.seconds)
    items = items_of(context, judge.kinds, count, lambda item: answered(item["messages"]) is not None)
    if len(items) < 2:
        raise Lacking("two held-out questions with known answers are needed")
    rate_hz = system.rate_hz
    asked = [question(item, context, rate_hz) for item in items]
    others = [*range(1, len(items)), 0]
    for place, (item, one) in enumerate(zip(items, asked, strict=True)):
        other = asked[others[place]]
        ways = {
            "asked": one,
            "paused": paused(item, one, rate_hz),
            "interrupted": interrupted(one, other, rate_hz),
        }
        texts = (_asked(item), _asked(items[others[place]]))
        for way, heard in ways.items():
            sample = Path(folder) / TASKS[way] / str(place)
            notes = _notes(way, heard, one.end_s, texts)
            ends = how.replace(seconds=0.0) if way == "paused" else how
            _answer(sample, ends, system, heard, notes, words)
    return {task: len(items) for task in TASKS.values()}


def answer_samples(folder: str | Path, system: Any, words: bool = True) -> int:
    """Let a system hear the samples of the benchmark in a folder and write `output.wav` beside each; how many.

    An output is as long as its input. `words` as in `write_turns`.
    """
    how = _silent_for(system, 0.0)
    rate_hz, samples = system.rate_hz, samples_below(folder)
    for sample in samples:
        heard = read_input(sample, rate_hz)
        (reply,) = replies_to(system, [spoken(heard, rate_hz)], decoding=how)
        _write(sample, reply, rate_hz, len(heard) / rate_hz, words)
    return len(samples)


def _answer(
    sample: Path, how: Any, system: Any, heard: Heard, notes: dict[str, Any], words: bool
) -> None:  # fmt: skip
    """Input, silence behind it, and what is said in both."""
    rate_hz = system.rate_hz
    silence = np.zeros(round(how.seconds * rate_hz), np.float32)
    whole = np.concatenate([heard.samples, silence])
    write_input(sample, whole, rate_hz, notes)
    (reply,) = replies_to(system, [spoken(heard.samples, rate_hz)], decoding=how)
    after_s = heard.end_s if "interrupt" in notes else 0.0
    _write(sample, reply, rate_hz, len(whole) / rate_hz, words, after_s)


def _silent_for(system: Any, seconds: float) -> Any:
    """How a system decodes that hears so many seconds of silence at the end; raises `Lacking` for one that cannot."""
    require_streams(system)
    if not hasattr(system.decoding, "seconds"):
        raise Lacking("its decoding does not say how long it goes on after what it hears (`seconds`)")
    return system.decoding.replace(seconds=seconds)


def _write(sample: Path, reply: Any, rate_hz: int, length_s: float, words: bool, after_s: float = 0.0) -> None:
    said = reply.messages[0].speech[0].samples[: round(length_s * rate_hz)]
    text, spans = text_of(reply) if words else None, voiced_spans(said, rate_hz)
    write_output(sample, said, rate_hz, length_s=length_s, words=text, spans=spans, after_s=after_s)


def _notes(way: str, heard: Heard, first_end_s: float, texts: tuple[str, str]) -> dict[str, Any]:
    """The annotations of one sample, by name of their file."""
    if way == "asked":
        return {"turn_taking": [{"text": "[TURN-TAKING]", "timestamp": [heard.end_s, heard.end_s]}]}
    if way == "paused":
        return {"pause": [{"text": "[PAUSE]", "timestamp": list(heard.pause or (0.0, 0.0))}]}
    begins = first_end_s + CONTEXT_GAP_S
    return {"interrupt": [{"context": texts[0], "interrupt": texts[1], "timestamp": [begins, heard.end_s]}]}


def _asked(item: Item) -> str:
    """The words of a question."""
    return next((turn.text for turn in item["messages"] if turn.role == "user" and turn.text), "")
