"""Recordings beside what a codec makes of them, at several bitrates; how much of every codebook is used."""

import time
from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import numpy as np

from slm_jax.audio.plots import plot_points
from slm_jax.core.messages import Message, Speech
from slm_jax.evaluation.codec import pesq, si_sdr, use_of
from slm_jax.evaluation.resynthesis import log_mel_distance, stoi_if_any
from slm_jax.evaluation.section import JudgeConfig, JudgeSettings, Plot, Section, Sound, Table
from slm_jax.serving.codec_system import CodecDecoding, CodecSystem
from slm_jax.training.held_out import held_out, waveform
from slm_jax.training.stages import StageContext

WORDS = (
    "Means over held-out utterances. STOI: intelligibility, 0 to 1; PESQ: quality as heard, 1 to 4.6; distance of log "
    "mels; SI-SDR: signal to distortion, which a codec that makes its own phase does not try to have."
)
METRICS = ("stoi", "pesq", "log_mel_distance", "si_sdr")


class CodecJudge(JudgeConfig):
    """`books`: with how many codebooks, None for all powers of two and all of them."""

    name: str = "codec"
    books: tuple[int, ...] | None = None

    def judge(self, system: CodecSystem, context: StageContext, settings: JudgeSettings) -> Section:
        items = held_out(context, settings.utterances, longer_than_s=1.0)
        originals = [waveform(item, context, system.rate_hz) for item in items]
        config, codes = system.tokenizer.config, None
        figures: dict[str, dict[str, Any]] = {}
        sounds: list[Sound] = []
        for books in self._counts(config.quantizer.books):
            started = time.perf_counter()
            made, ids = spoken_again(system, originals, books)
            seconds = time.perf_counter() - started
            figures[str(books)] = {
                "bits_per_second": config.bits_per_second(books),
                **scores(originals, made, system.rate_hz),
                "real_time_factor": seconds / (sum(map(len, originals)) / system.rate_hz),
            }
            context.say(f"{books} books: STOI {figures[str(books)]['stoi']}")
            sounds.append(Sound(f"codec_{books}_books", made[0], system.rate_hz, f"The same with {books} books"))
            codes = np.concatenate(ids)
        assert codes is not None  # for the type checker: there is one book at least
        used = use_of(codes, config.quantizer.sizes)
        first = Sound("codec_original", originals[0], system.rate_hz, "A recording")
        points = {
            f"{books} books": (one["bits_per_second"] / 1000, one["stoi"], None)
            for books, one in figures.items()
            if one["stoi"] is not None
        }
        plot = Plot("codec", partial(plot_points, points=points, xlabel="kb/s", ylabel="STOI"), "STOI by bitrate")
        kept = {"quality": figures, "codebooks": used}
        return Section("Codec", WORDS, {self.name: kept}, tables(figures, used), (first, *sounds), (plot,))

    def _counts(self, books: int) -> list[int]:
        powers = [2**power for power in range(books.bit_length()) if 2**power < books]
        return list(self.books) if self.books is not None else [*powers, books]


def spoken_again(
    system: CodecSystem, originals: Sequence[np.ndarray], books: int
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Sound and codes of every recording."""
    asked = [(Message("user", (Speech(samples, system.rate_hz),)),) for samples in originals]
    replies = system.respond(asked, CodecDecoding(books=books), jax.random.key(0))
    sounds = [reply.messages[0].speech[0].samples for reply in replies]
    return sounds, [reply.trace["codes"] for reply in replies]


def scores(originals: Sequence[np.ndarray], made: Sequence[np.ndarray], rate_hz: int) -> dict[str, float | None]:
    """The mean of every metric; None where it has no value for any utterance."""
    rows = [
        {
            "stoi": stoi_if_any(one, other, rate_hz),
            "pesq": pesq(one, other, rate_hz),
            "log_mel_distance": log_mel_distance(one, other, rate_hz),
            "si_sdr": si_sdr(one, other),
        }
        for one, other in zip(originals, made, strict=True)
    ]
    known = {name: [value for row in rows if (value := row[name]) is not None] for name in METRICS}
    return {name: float(np.mean(values)) if values else None for name, values in known.items()}


def tables(figures: dict[str, Any], used: list[dict[str, float]]) -> tuple[Table, ...]:
    """Quality by books, and use of every column of codes."""
    names = ("bits_per_second", *METRICS, "real_time_factor")
    quality = Table(("books", *names), [(books, *(one[name] for name in names)) for books, one in figures.items()])
    columns = [(place, one["used"], one["perplexity"]) for place, one in enumerate(used)]
    return quality, Table(("column", "codes used", "perplexity / codes"), columns)
