"""Full-Duplex-Bench 1.0 (Lin et al., arXiv 2503.04721): what a system says while it hears, as folders that it scores.

A sample is `TASK/ID/` with `input.wav` and, by task, `pause.json` or `turn_taking.json` (`[{"text", "timestamp":
[start, end]}]`, seconds) or `interrupt.json` (`[{"context", "interrupt", "timestamp"}]`). A system puts `output.wav`
beside it, which begins with the input and is as long, and its `get_transcript/asr.py` makes `output.json` of that:
`{"text", "chunks": [{"text", "timestamp"}]}`, a chunk for each word. `evaluate.py --task TASK --root_dir TASK` reads
`output.json` and the annotation, and for backchannels `output.wav` too.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from slm_jax.audio.files import read_audio, resample, write_wav
from slm_jax.core.errors import require

RATE_HZ = 16_000
"""Of `output.wav`."""
INPUT, OUTPUT, WORDS = "input.wav", "output.wav", "output.json"
Span = tuple[float, float]
Sound = Float[np.ndarray, "N"]


def samples_below(folder: str | Path) -> list[Path]:
    """The samples of a task: folders with an `input.wav`; raises `UserError` where there is none."""
    found = sorted({path.parent for path in Path(folder).rglob(INPUT)}, key=lambda path: (len(path.name), str(path)))
    require(bool(found), "task", str(folder), f"no folder in it has an {INPUT}")
    return found


def read_input(sample: str | Path, rate_hz: int) -> Sound:
    """What a system hears."""
    return read_audio(Path(sample) / INPUT, rate_hz=rate_hz)


def write_input(sample: str | Path, samples: Sound, rate_hz: int, notes: dict[str, Any]) -> None:
    """What a system is to hear, and its annotations by file name without `.json`."""
    write_wav(Path(sample) / INPUT, _at(samples, rate_hz), RATE_HZ)
    for name, value in notes.items():
        (Path(sample) / f"{name}.json").write_text(json.dumps(value), encoding="utf-8")


def write_output(
    sample: str | Path, samples: Sound, rate_hz: int, *, length_s: float | None = None, words: str | None = None,
    spans: Sequence[Span] = (), after_s: float = 0.0,
) -> None:  # fmt: skip
    """What a system said, cut or filled up with silence to `length_s` seconds (None: as it is).

    `words`: what it wrote while it spoke, laid out over the `spans` of its voice that end after `after_s`, seconds
    (`chunks_of`); None leaves the transcript to the benchmark's own recognizer.
    """
    said = _at(samples, rate_hz)
    if length_s is not None:
        size = round(length_s * RATE_HZ)
        said = np.pad(said[:size], (0, max(0, size - len(said))))
    write_wav(Path(sample) / OUTPUT, said, RATE_HZ)
    if words is not None:
        heard = [(max(start, after_s), end) for start, end in spans if end > after_s]
        chunks = chunks_of(words, heard)
        told = {"text": " ".join(chunk["text"] for chunk in chunks), "chunks": chunks}
        (Path(sample) / WORDS).write_text(json.dumps(told, indent=4), encoding="utf-8")


def chunks_of(words: str, spans: Sequence[Span]) -> list[dict[str, Any]]:
    """Words with times: laid end to end over the spans of a voice, each for as long as its share of the letters.

    An estimate, made where no recognizer tells: the first word begins where the voice does and the last one ends with
    it, which is what the benchmark's measures of turns look at. A voice without words is one chunk a span.
    """
    said = words.split() or ["..."] * len(spans)
    if not spans:
        return []
    total = sum(end - start for start, end in spans)
    ends = np.cumsum([len(word) for word in said]) / sum(map(len, said)) * total
    begins = [0.0, *ends[:-1]]
    return [
        {"text": word, "timestamp": [_time(spans, begin, True), _time(spans, end, False)]}
        for word, begin, end in zip(said, begins, ends, strict=True)
    ]


def _time(spans: Sequence[Span], voiced_s: float, begins: bool) -> float:
    """The time at which so many seconds of voice have been heard; at the seam of two spans a word begins in the later
    one and ends in the earlier one."""
    for start, end in spans[:-1]:
        length = end - start
        if voiced_s < length - 1e-9 or (not begins and voiced_s <= length + 1e-9):
            return round(start + voiced_s, 3)
        voiced_s -= length
    start, end = spans[-1]
    return round(min(start + voiced_s, end), 3)


def _at(samples: Sound, rate_hz: int) -> np.ndarray:
    return samples if rate_hz == RATE_HZ else resample(samples, rate_hz, RATE_HZ)
