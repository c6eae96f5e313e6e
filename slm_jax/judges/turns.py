"""Somebody who hears and speaks at once: does it wait, take its turn, and give way?"""

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from slm_jax.audio.plots import plot_histogram
from slm_jax.core.contracts import Opens
from slm_jax.core.messages import spoken
from slm_jax.data.word_times import words_of
from slm_jax.evaluation.intervals import bootstrap_interval
from slm_jax.evaluation.latency import percentiles
from slm_jax.evaluation.section import JudgeConfig, JudgeSettings, Lacking, Plot, Section, Sound, Table
from slm_jax.evaluation.turn_taking import Span, backchannels, first_voice, takes_over, voiced_spans
from slm_jax.judges.answers import answered
from slm_jax.judges.asking import Item, items_of, replies_to
from slm_jax.training.held_out import waveform
from slm_jax.training.stages import StageContext

PAUSE_S, WITHIN_S, EARLY_S = 0.8, 1.0, 0.2
SHOWN = 3
WORDS = (
    "Held-out questions, asked three times. Asked: whether a second of voice begins within a second of the end of the "
    "question (higher is better), and how long that takes. Paused: the question with a silence of {pause} s between "
    "two of its words; whether the system takes over in it (lower is better). Interrupted: a second question while it "
    "answers the first; whether it answers within a second of its end. Voice: by energy. A backchannel is voice of "
    "less than a second while the question is asked."
)


class Heard(NamedTuple):
    """What the user says, and the time by which it has been said; of a pause its beginning and end."""

    samples: np.ndarray
    end_s: float
    pause: Span | None = None


class TurnsJudge(JudgeConfig):
    """Questions of the world, the user's side alone, `seconds` of silence after them.

    `kinds`: items whose first turn is a question of the user that the assistant answers.
    """

    name: str = "turns"
    kinds: tuple[str, ...] = ("question_answer",)
    seconds: float = 4.0

    def judge(self, system: Any, context: StageContext, settings: JudgeSettings) -> Section:
        require_streams(system)
        items = items_of(context, self.kinds, settings.utterances, lambda item: answered(item["messages"]) is not None)
        if len(items) < 2:
            raise Lacking("two held-out questions with known answers are needed")
        rate_hz, asked = system.rate_hz, [question(item, context, system.rate_hz) for item in items]
        ways = {
            "asked": asked,
            "paused": [paused(item, one, rate_hz) for item, one in zip(items, asked, strict=True)],
            "interrupted": [interrupted(*pair, rate_hz) for pair in zip(asked, [*asked[1:], asked[0]], strict=True)],
        }
        said = {name: self.said(system, some) for name, some in ways.items()}
        spans = {name: [voiced_spans(one, rate_hz) for one in some] for name, some in said.items()}
        figures = turn_figures(ways, spans, rate_hz)
        sounds = tuple(
            Sound(f"{self.name}_{i}", mixed(asked[i].samples, said["asked"][i]), rate_hz, items[i]["text"])
            for i in range(min(SHOWN, len(items)))
        )
        rows = [[name, figures[name]["share"], figures[name]["interval"]] for name in ways]
        table = Table(["", "takes over", "95 %"], rows)
        plots = self.plots([wait for some, one in zip(spans["asked"], asked, strict=True) for wait in waits(some, one)])
        return Section("Turns", WORDS.format(pause=PAUSE_S), {self.name: figures}, (table,), sounds, plots)

    def plots(self, found: list[float]) -> tuple[Plot, ...]:
        """How long one waits; none where nobody is heard."""
        groups = {"asked": found}
        draw = partial(plot_histogram, groups=groups, xlabel="seconds", title="From the end of a question to a voice")
        return (Plot(self.name, draw, "How long one waits for a voice"),) if found else ()

    def said(self, system: Any, asked: Sequence[Heard]) -> list[np.ndarray]:
        """The own side beside each of these."""
        how = system.decoding.replace(seconds=self.seconds)
        replies = replies_to(system, [spoken(one.samples, system.rate_hz) for one in asked], decoding=how)
        return [reply.messages[0].speech[0].samples for reply in replies]


def require_streams(system: Any) -> None:
    """Raise `Lacking` for a system that takes turns."""
    if not isinstance(system, Opens):
        raise Lacking("the system does not speak while it hears")


def question(item: Item, context: StageContext, rate_hz: int) -> Heard:
    """The first turn of the user, as it was said."""
    turn = next(turn for turn in item["messages"] if turn.role == "user")
    samples = np.asarray(item["samples"])
    side = item | {"samples": samples[:, turn.channel] if samples.ndim == 2 else samples}
    whole = waveform(side, context, rate_hz)
    end_s = float(turn.end_s)
    return Heard(whole[: round(end_s * rate_hz)], end_s)


def paused(item: Item, asked: Heard, rate_hz: int) -> Heard:
    """A question with a silence before its last word but one."""
    words = words_of(item)
    starts = [start for start in (() if words is None else words.start_s) if start < asked.end_s]
    cut_s = float(starts[-2] if len(starts) > 2 else asked.end_s / 2)
    place, silence = round(cut_s * rate_hz), np.zeros(round(PAUSE_S * rate_hz), np.float32)
    samples = np.concatenate([asked.samples[:place], silence, asked.samples[place:]])
    return Heard(samples, asked.end_s + PAUSE_S, (cut_s, cut_s + PAUSE_S))


def interrupted(asked: Heard, other: Heard, rate_hz: int) -> Heard:
    """Another question a second after the end of the first, while it is being answered."""
    silence = np.zeros(rate_hz, np.float32)
    samples = np.concatenate([asked.samples, silence, other.samples])
    return Heard(samples, len(samples) / rate_hz)


def turn_figures(ways: dict[str, list[Heard]], spans: dict[str, list[list[Span]]], rate_hz: int) -> dict[str, Any]:
    """Shares of takeovers, each with what is right there, and how long one waits."""
    found: dict[str, Any] = {"questions": len(ways["asked"])}
    for name, heard in ways.items():
        found[name] = share([taken(some, one) for some, one in zip(spans[name], heard, strict=True)])
    waited = [waits(some, one) for some, one in zip(spans["asked"], ways["asked"], strict=True)]
    known = [wait for some in waited for wait in some]
    minute = per_minute(spans["asked"], ways["asked"], rate_hz)
    silent = len(waited) - len(known)
    return {**found, "silent": silent, "seconds_to_voice": percentiles(known), "backchannels_per_minute": minute}


def taken(spans: Sequence[Span], asked: Heard) -> bool:
    """Is the turn taken in the pause, or, where there is none, within a second of the end?

    What begins up to a fifth of a second before the end counts too.
    """
    start, end = asked.pause or (asked.end_s - EARLY_S, asked.end_s + WITHIN_S)
    return takes_over(spans, start, end)


def waits(spans: Sequence[Span], asked: Heard) -> list[float]:
    """Seconds from the end of a question to a voice, nothing where there is none."""
    found = first_voice(spans, asked.end_s)
    return [] if found is None else [found]


def share(found: Sequence[bool]) -> dict[str, Any]:
    """A mean with its interval."""
    values = [float(one) for one in found]
    return {"share": float(np.mean(values)), "interval": bootstrap_interval(values)}


def per_minute(spans: Sequence[list[Span]], asked: Sequence[Heard], rate_hz: int) -> float:
    """Backchannels in a minute of the other's speech."""
    seconds = sum(len(one.samples) for one in asked) / rate_hz
    count = sum(backchannels(some, voiced_spans(one.samples, rate_hz)) for some, one in zip(spans, asked, strict=True))
    return 60 * count / seconds


def mixed(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Both sides at once."""
    length = max(len(one), len(other))
    both = np.stack([np.pad(side, (0, length - len(side))) for side in (one, other)]).sum(0)
    return (both / max(1.0, np.abs(both).max())).astype(np.float32)
