"""What a tokenizer makes, said so that whoever reads tokens need not ask which kind of tokenizer it was."""

from typing import Any

from slm_jax.core.config import Config
from slm_jax.core.errors import require


class Codebook(Config):
    """One stream of ids in `[0, size)`. `size` 0: the stream holds real numbers instead (log F0, say)."""

    name: str
    size: int

    def __post_init__(self) -> None:
        require(bool(self.name), "name", self.name, "every codebook needs one")
        require(self.size >= 0, f"size of codebook {self.name!r}", self.size, "0 (real numbers) or more")

    @property
    def is_discrete(self) -> bool:
        """Does it hold ids?"""
        return self.size > 0


class TokenSpec(Config):
    """K codebooks, a frame every `hop` samples at `rate_hz` samples per second.

    `columns`: the column of the tokens' table that holds each codebook, frame by frame, in the order of `codebooks`.
    `runs`: the columns of the same codebooks where equal neighbours are one, None where the tokenizer keeps none;
    `durations`: the column that says how many frames each run lasts.
    """

    codebooks: tuple[Codebook, ...]
    hop: int
    rate_hz: int
    columns: tuple[str, ...]
    runs: tuple[str, ...] | None = None
    durations: str | None = None

    def __post_init__(self) -> None:
        names = [book.name for book in self.codebooks]
        require(bool(names) and len(set(names)) == len(names), "codebooks", names, "at least one, all names different")
        require(self.hop > 0, "hop", self.hop, "samples per frame, above 0")
        require(self.rate_hz > 0, "rate_hz", self.rate_hz, "samples per second, above 0")
        for field in ("columns", "runs"):
            columns = getattr(self, field)
            fits = columns is None or len(columns) == len(names)
            require(fits, field, columns, f"one for each of the codebooks {names}")
        together = (self.runs is None) == (self.durations is None)
        require(together, "durations", self.durations, "a column where there are runs, None where there are none")

    @property
    def sizes(self) -> tuple[int, ...]:
        """Entries of every codebook."""
        return tuple(book.size for book in self.codebooks)

    @property
    def frames_per_second(self) -> float:
        """Frames in a second."""
        return self.rate_hz / self.hop

    @property
    def units(self) -> int:
        """Entries of the only codebook; raises `UserError` when there are several, or one of real numbers."""
        single = len(self.codebooks) == 1 and self.codebooks[0].is_discrete
        require(single, "codebooks", [book.name for book in self.codebooks], "one stream of ids is needed here")
        return self.codebooks[0].size

    def describe(self) -> str:
        """`units 100, log_f0 real; every 320 samples at 16,000 Hz`."""
        books = ", ".join(f"{book.name} {book.size if book.is_discrete else 'real'}" for book in self.codebooks)
        return f"{books}; every {self.hop} samples at {self.rate_hz:,} Hz"

    def require_same(self, other: "TokenSpec", what: str) -> None:
        """Raise `UserError` that shows both unless `other` says the same."""
        require(self == other, what, other.describe(), f"the model was made for {self.describe()}")


def single(name: str, size: int, hop: int, rate_hz: int, **columns: Any) -> TokenSpec:
    """The spec of a tokenizer with one codebook."""
    return TokenSpec(codebooks=(Codebook(name=name, size=size),), hop=hop, rate_hz=rate_hz, **columns)
