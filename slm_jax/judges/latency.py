"""How long one waits: for a reply to one conversation, and, of a system that streams, for every push."""

import os
from collections.abc import Callable, Sequence
from functools import partial
from time import perf_counter
from typing import Any, NamedTuple

import jax
import numpy as np

from slm_jax.audio.files import resample
from slm_jax.audio.plots import plot_histogram
from slm_jax.core.contracts import Opens, Reply
from slm_jax.core.messages import Conversation, written
from slm_jax.evaluation.latency import percentiles, real_time_factor
from slm_jax.evaluation.section import JudgeConfig, JudgeSettings, Lacking, Plot, Section, Table
from slm_jax.judges.asking import Item, heard, items_of
from slm_jax.training.held_out import waveform
from slm_jax.training.stages import StageContext

RESPOND, PUSH = "respond", "push"
HEADER = ("", "count", "p50", "p90", "p99", "mean", "first call")


class Timed(NamedTuple):
    """Seconds that one reply took, of the speech that was heard, and of what was said."""

    taken: float
    heard: float
    said: float


class LatencyJudge(JudgeConfig):
    """How quick is the system with one conversation at a time?

    Each held-out item is answered once unmeasured, so that its shapes are compiled, and once measured. `prompt`: what
    is written after the speech where the system reads text; a system that reads text alone gets the item's text.
    `pushes`: at most so many of a system that streams are timed.
    """

    name: str = "latency"
    kinds: tuple[str, ...] | None = None
    prompt: str = ""
    pushes: int = 200

    def judge(self, system: Any, context: StageContext, settings: JudgeSettings) -> Section:
        items = items_of(context, self.kinds, settings.utterances, lambda item: bool(self.asked(item, context, system)))
        if not items:
            raise Lacking("there is no held-out item that the system reads")
        first_s, times = self.replies(items, system, context)
        figures: dict[str, Any] = {"machine": machine(), RESPOND: respond_figures(times, first_s)}
        histograms = {RESPOND: [one.taken for one in times]}
        if isinstance(system, Opens):
            clips = [waveform(item, context, context.corpus.rate_hz) for item in items]
            first_s, histograms[PUSH], hop_s = push_times(system, clips, context.corpus.rate_hz, self.pushes)
            figures[PUSH] = push_figures(histograms[PUSH], hop_s, first_s)
        table = Table(HEADER, [_row(name, figures[name]) for name in histograms], "Seconds")
        draw = partial(plot_histogram, groups=histograms, xlabel="seconds", title="Latency")
        plot = Plot(self.name, draw, "How often a reply, or a push, took how long")
        return Section("Latency", in_words(figures), {self.name: figures}, (table,), plots=(plot,))

    def asked(self, item: Item, context: StageContext, system: Any) -> Conversation:
        """An item as the system reads it; empty where it can't."""
        if "speech" in system.reads:
            return heard(item, context, system.rate_hz, self.prompt if "text" in system.reads else "")
        return written(item["text"]) if item["text"].strip() else ()

    def replies(self, items: Sequence[Item], system: Any, context: StageContext) -> tuple[float, list[Timed]]:
        """Seconds of the very first call, and the times of all items, each after one call that warms."""
        first, found = 0.0, []
        for place, item in enumerate(items):
            asked = self.asked(item, context, system)
            answer = partial(system.respond, [asked], None, jax.random.key(place))
            warming, _ = timed(answer)
            first = first or warming
            taken, (reply,) = timed(answer)
            listened = sum((clip.seconds for message in asked for clip in message.speech), 0.0)
            found.append(Timed(taken, listened, seconds_said(reply)))
        return first, found


def timed(call: Callable[[], Any]) -> tuple[float, Any]:
    """Seconds until all that a call gives is there, and what it gave."""
    start = perf_counter()
    found = jax.block_until_ready(call())
    return perf_counter() - start, found


def seconds_said(reply: Reply) -> float:
    """How long a reply is heard."""
    return sum((clip.seconds for message in reply.messages for clip in message.speech), 0.0)


def respond_figures(times: Sequence[Timed], first_s: float) -> dict[str, Any]:
    """Percentiles of seconds, and seconds per second of speech that was heard and that was said."""
    taken, listened, said = (list(column) for column in zip(*times, strict=True))
    return {
        "count": len(times),
        **percentiles(taken),
        "first_call_s": first_s,
        "real_time_factor_heard": real_time_factor(taken, listened),
        "real_time_factor_said": real_time_factor(taken, said),
    }


def push_times(system: Any, clips: Sequence[np.ndarray], rate_hz: int, pushes: int) -> tuple[float, list[float], float]:
    """Seconds of the first push, which warms, and of up to `pushes` more; and how long a push is heard (hop, seconds).

    One row, `clips` (at `rate_hz`) one after the other, each from a reset row on; the last stretch is padded.
    """
    session, active = system.open(1), np.ones(1, bool)
    found: list[float] = []
    stretches = [cut(resample(clip, rate_hz, session.rate_hz), session.hop) for clip in clips]
    first, _ = timed(partial(session.push, stretches[0][0], active))
    for clip in stretches:
        session.reset(active)
        for stretch in clip[: pushes - len(found)]:
            found.append(timed(partial(session.push, stretch, active))[0])
    return first, found, session.hop / session.rate_hz


def cut(samples: np.ndarray, hop: int) -> np.ndarray:
    """Samples `[N]` as stretches `[pushes, 1, hop]` of one row, zeros at the end."""
    return np.pad(samples, (0, -len(samples) % hop)).reshape(-1, 1, hop)


def push_figures(taken: Sequence[float], hop_s: float, first_s: float) -> dict[str, Any]:
    """Percentiles of seconds per push, and which share took longer than what is heard in it."""
    late = sum(seconds > hop_s for seconds in taken)
    share = late / len(taken) if taken else None
    return {"count": len(taken), **percentiles(taken), "first_call_s": first_s, "hop_s": hop_s, "share_over_hop": share}


def machine() -> dict[str, Any]:
    """What it ran on, and how busy that is with everything together (load of the last minute, where it is known)."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    load = round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None
    return {"device": jax.devices()[0].device_kind, "cores": cores, "load": load}


def in_words(figures: dict[str, Any]) -> str:
    """What was measured, where, and how it compares with the time of speech."""
    on, reply = figures["machine"], figures[RESPOND]
    found = [
        f"Seconds for one conversation at a time, {reply['count']} of them, each after a call of its own shape that "
        f"warms. Device: {on['device']}, {on['cores']} cores, load {on['load']} after it.",
        *(
            f"Seconds per second {what}: {reply[name]:.3g}."
            for what, name in (("heard", "real_time_factor_heard"), ("said", "real_time_factor_said"))
            if reply[name] is not None
        ),
    ]
    if PUSH in figures:
        push = figures[PUSH]
        share = push["share_over_hop"]
        late = "" if share is None else f", of which {share:.1%} took longer than that"
        found.append(f"A push brings {push['hop_s'] * 1000:.3g} ms of speech; {push['count']} were timed{late}.")
    return " ".join(found)


def _row(name: str, row: dict[str, Any]) -> list[Any]:
    return [name, *(row[column] for column in ("count", "p50", "p90", "p99", "mean", "first_call_s"))]
