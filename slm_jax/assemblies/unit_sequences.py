"""Speech to the units that a language model reads: frame by frame, without repetitions, or as byte pairs of those.

The three compressions of DiscreteSLU (Shon et al. 2024), and what a unit language model over byte pairs reads.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Int

from slm_jax.assemblies.phonetic_tokenizer import RATE_HZ, PhoneticTokenizer
from slm_jax.core.errors import require
from slm_jax.core.token_spec import TokenSpec, single
from slm_jax.token_compression.bpe import UnitBPE
from slm_jax.token_compression.dedup import dedup_row, repeat_row


@dataclasses.dataclass(frozen=True)
class BytePairTokenizer:
    """Byte pairs over the runs of a tokenizer's units: equal neighbours become one, then frequent strings become one.

    Its `runs` are the tokens in their order. Two equal ones after each other stay two, as they stand for the same
    string of units twice.
    """

    tokenizer: PhoneticTokenizer
    bpe: UnitBPE

    def __post_init__(self) -> None:
        rule = f"the tokenizer makes {self.tokenizer.units}: the byte pairs are of other units"
        require(self.bpe.units == self.tokenizer.units, "units of the byte pairs", self.bpe.units, rule)

    @property
    def spec(self) -> TokenSpec:
        """One stream of tokens, with the columns that a stage writes them to."""
        return byte_pair_spec(len(self.bpe), self.tokenizer.spec.hop)

    def frame_count(self, n: Any) -> Any:
        """Frames of `n` samples."""
        return self.tokenizer.frame_count(n)

    def encode_all(self, waveforms: Sequence[Float[np.ndarray, "_"]]) -> list[Int[np.ndarray, "_"]]:
        """The token of every frame of each waveform; raises `UserError` for one that is shorter than a frame."""
        return [repeat_row(*self.tokens(units)) for units in self.tokenizer.encode_all(waveforms)]

    def tokens(self, units: Int[np.ndarray, "T"]) -> tuple[Int[np.ndarray, "S"], Int[np.ndarray, "S"]]:
        """Tokens of the units of one utterance, and how many frames each lasts (int32)."""
        return byte_pairs(self.bpe, *dedup_row(units))


Tokenizer = PhoneticTokenizer | BytePairTokenizer


@dataclasses.dataclass(frozen=True)
class UnitSequences:
    """What a model reads of clips: what `tokenizer` makes of them, with `runs` without repetitions.

    Of byte pairs the tokens themselves are read, which have `runs`.
    """

    tokenizer: Tokenizer
    runs: bool = True

    def __post_init__(self) -> None:
        plain = self.runs or isinstance(self.tokenizer, PhoneticTokenizer)
        require(plain, "runs", self.runs, "byte pairs are read one by one, not frame by frame")

    @property
    def size(self) -> int:
        """Number of different ids."""
        return self.tokenizer.spec.units

    def of_units(self, units: Int[np.ndarray, "T"]) -> Int[np.ndarray, "U"]:
        """What is read of the units of all frames of a clip."""
        if isinstance(self.tokenizer, BytePairTokenizer):
            return self.tokenizer.tokens(units)[0]
        return dedup_row(units)[0] if self.runs else units

    def of_batch(self, samples: Float[np.ndarray, "B N"], mask: Bool[np.ndarray, "B N"]) -> list[np.ndarray]:
        """What is read of right-padded clips at 16 kHz: int32 ids `[U]` of each, none of one without a frame."""
        codes = self._phonetic.encode(jnp.asarray(samples), jnp.asarray(mask))
        rows = zip(np.asarray(codes.ids)[..., 0], np.asarray(codes.mask), strict=True)
        return [self.of_units(ids[real].astype(np.int32)) for ids, real in rows]

    def of_clips(self, clips: Sequence[Float[np.ndarray, "_"]]) -> list[np.ndarray]:
        """What is read of clips of any length; raises `UserError` for one that is shorter than a frame."""
        return [self.of_units(units) for units in self._phonetic.encode_all(clips)]

    @property
    def _phonetic(self) -> PhoneticTokenizer:
        inner = self.tokenizer
        return inner.tokenizer if isinstance(inner, BytePairTokenizer) else inner


def byte_pairs(
    bpe: UnitBPE, runs: Int[np.ndarray, "R"], durations: Int[np.ndarray, "R"]
) -> tuple[Int[np.ndarray, "S"], Int[np.ndarray, "S"]]:
    """Tokens of runs of units, and how many frames each lasts (int32)."""
    tokens = bpe.encode(runs)
    ends = np.cumsum(bpe.token_lengths()[tokens])
    frames = np.concatenate([[0], np.cumsum(durations)])
    return tokens, np.diff(frames[ends], prepend=0).astype(np.int32)


def byte_pair_spec(tokens: int, hop: int) -> TokenSpec:
    """A token for every `hop` samples: column `units`, and one by one in `runs` with their `durations`."""
    return single("tokens", tokens, hop, RATE_HZ, columns=("units",), runs=("runs",), durations="durations")
