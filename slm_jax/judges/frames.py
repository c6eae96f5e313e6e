"""Where the time of somebody who hears and speaks at once goes, from the microphone to the loudspeaker.

capture -> codec encode -> temporal step -> text, codes -> (delay) -> codec decode -> transport
"""

import importlib.util
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import numpy as np

from slm_jax.audio.plots import plot_histogram, plot_parts
from slm_jax.core.errors import require
from slm_jax.evaluation.section import JudgeConfig, JudgeSettings, Lacking, Plot, Section, Table
from slm_jax.judges.asking import Item, items_of
from slm_jax.judges.latency import cut, machine, timed
from slm_jax.judges.turns import require_streams
from slm_jax.serving import duplex
from slm_jax.serving.duplex import DuplexSession
from slm_jax.training.held_out import waveform
from slm_jax.training.stages import StageContext

WORDS = (
    "One row, {frames} frames of {hop:.3g} ms of held-out speech, one after the other as quickly as they go; {missed} "
    "took longer than they are heard, and {recompiled} programs were compiled on the way. What is heard can be replied "
    "to after {total:.0f} ms: a frame is captured whole, {behind} more go by until the first one that replies is whole "
    "(delay), the rest is computed (each part alone, in a program of its own: their sum is not that of one program) "
    "and sent. Device: {device}, {cores} cores, load {load} after it."
)


class FramesJudge(JudgeConfig):
    """How long every frame takes, and each of its parts.

    `frames`: so many of held-out speech, said again where it is too little (7,500 of 80 ms are ten minutes). `repeats`
    of each part and of a round trip of the socket, whose medians count; without aiohttp the socket is left out.
    """

    name: str = "frames"
    frames: int = 750
    repeats: int = 50

    def __post_init__(self) -> None:
        require(self.frames >= 1, "frames", self.frames, "at least 1")
        require(self.repeats >= 1, "repeats", self.repeats, "at least 1")

    def judge(self, system: Any, context: StageContext, settings: JudgeSettings) -> Section:
        require_streams(system)
        items = items_of(context, None, settings.utterances, lambda item: len(item["samples"]) > 0)
        session = system.open(1)
        if not items or not isinstance(session, DuplexSession):
            raise Lacking("held-out speech and a session of text and two sides are needed")
        sound = np.concatenate([waveform(_users(item), context, session.rate_hz) for item in items])
        first_s, taken, recompiled = self.pushes(session, cut(sound, session.hop))
        chain = {**waited(session), **self.computed(session), **self.sent(sound[: session.hop])}
        figures = {
            "machine": machine(),
            "frame_ms": _percentiles_ms(taken),
            "frames": len(taken),
            "missed": int((np.array(taken) > session.hop / session.rate_hz).sum()),
            "recompiled": recompiled,
            "first_sound_ms": 1000 * first_s,
            "chain_ms": chain,
            "total_ms": sum(chain.values()),
        }
        words, plots = _in_words(figures, session), _plots(chain, taken)
        return Section("Frames", words, {self.name: figures}, _tables(figures), plots=plots)

    def pushes(self, session: DuplexSession, stretches: np.ndarray) -> tuple[float, list[float], int]:
        """Seconds from a new row to its first sound, of every frame, and how many programs were compiled meanwhile."""
        active = np.ones(1, bool)
        session.warm_up()
        before = duplex.programs()
        first, _ = timed(lambda: [session.push(stretches[0], active) for _ in range(session.behind)])
        said = (stretches[place % len(stretches)] for place in range(self.frames))
        taken = [timed(partial(session.push, stretch, active))[0] for stretch in said]
        return first, taken, duplex.programs() - before

    def computed(self, session: DuplexSession) -> dict[str, float]:
        """Milliseconds of every part of a frame."""
        return {name: self._median_ms(call) for name, call in session.parts().items()}

    def sent(self, samples: np.ndarray) -> dict[str, float]:
        """Milliseconds of a frame's way to a browser on this machine and back."""
        if importlib.util.find_spec("aiohttp") is None:
            return {}
        from slm_jax.serving.web.loopback import round_trips  # an extra

        return {"transport": 1000 * float(np.median(round_trips(samples, self.repeats)))}

    def _median_ms(self, call: Callable[[], Any]) -> float:
        jax.block_until_ready(call())
        return 1000 * float(np.median([timed(call)[0] for _ in range(self.repeats)]))


def waited(session: DuplexSession) -> dict[str, float]:
    """Milliseconds that nobody computes: until a frame is whole, what the codec looks ahead, frames of delay."""
    hop_ms = 1000 * session.hop / session.rate_hz
    codec_ms = 1000 * session.late / session.rate_hz - (session.behind - 1) * hop_ms
    return {"capture": hop_ms, "codec's look ahead": codec_ms, "delay": session.behind * hop_ms}


def _users(item: Item) -> Item:
    """With the user's channel alone."""
    samples = np.asarray(item["samples"])
    return item | {"samples": samples if samples.ndim == 1 else samples[:, 0]}


def _percentiles_ms(taken: Sequence[float]) -> dict[str, float]:
    shares = {f"p{share:g}".replace(".", ""): float(np.percentile(taken, share)) for share in (50, 90, 99, 99.9)}
    return {name: 1000 * value for name, value in {**shares, "max": max(taken)}.items()}


def _in_words(figures: dict[str, Any], session: DuplexSession) -> str:
    return WORDS.format(
        **{name: figures[name] for name in ("frames", "missed", "recompiled")},
        **figures["machine"],
        hop=1000 * session.hop / session.rate_hz,
        total=figures["total_ms"],
        behind=session.behind,
    )


def _tables(figures: dict[str, Any]) -> tuple[Table, ...]:
    frame, chain = figures["frame_ms"], figures["chain_ms"]
    return (
        Table(list(frame), [list(frame.values())], "Milliseconds of a whole frame"),
        Table(["", "ms"], [[name, value] for name, value in chain.items()], "From the microphone to the loudspeaker"),
    )


def _plots(chain: dict[str, float], taken: Sequence[float]) -> tuple[Plot, ...]:
    title = "From the microphone to the loudspeaker"
    parts = partial(plot_parts, parts=chain, xlabel="milliseconds", title=title)
    groups = {"frame": [1000 * one for one in taken]}
    frames = partial(plot_histogram, groups=groups, xlabel="milliseconds")
    return Plot("frame_parts", parts, f"{title}: each part"), Plot("frames", frames, "How long a frame takes")
