"""What is known of a named system before any of it is built: the lines of the table of systems."""

from slm_jax.core.config import Config
from slm_jax.core.errors import require

KINDS = {"speech": "pure speech", "speech_text": "speech and text", "speech_aware": "speech-aware text"}
"""Folder below `systems` -> kind of model, p(speech), p(speech, text) or p(text | speech, text)."""


class KeptFigure(Config):
    """A figure that was kept: `words` says what it is, and stands in `file` (JSON, from the root of the project) under
    the names `place`."""

    words: str
    file: str
    place: tuple[str, ...]


class SystemCard(Config):
    """A system: the paper, its sizes, what it reads and writes, whether it streams.

    `counted`: the stage by whose parameters a size is known. `plans`: names of kept plans
    (`experiments/tpu_plans/plans/<name>.json`).
    """

    name: str
    paper: str
    sizes: tuple[str, ...]
    reads: tuple[str, ...]
    writes: tuple[str, ...]
    streams: bool = False
    counted: str = "lm"
    plans: tuple[str, ...] = ()
    figures: tuple[KeptFigure, ...] = ()

    def __post_init__(self) -> None:
        for field in ("reads", "writes"):
            kinds = getattr(self, field)
            good = bool(kinds) and set(kinds) <= {"speech", "text"}
            require(good, field, kinds, "one or both of speech and text")
        require("tiny" in self.sizes, "sizes", self.sizes, "every system has a tiny twin")
