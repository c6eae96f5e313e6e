"""Several models in a row, each of which reads books that others wrote and writes new ones (Borsos et al. 2022).

AudioLM is three: semantic units; the coarse codes of a codec given the units; the fine codes given the coarse ones.
What stands here is data alone: the rows that the models read, there and back.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Bool, Int

from slm_jax.core.config import Config
from slm_jax.core.errors import require
from slm_jax.core.token_spec import TokenSpec
from slm_jax.schemes.flattened import Flattened
from slm_jax.schemes.one_row import codes_of, legal_ids, row_of
from slm_jax.text.vocabulary import Vocabulary

Books = Mapping[str, np.ndarray]
"""By name: units without repetitions `[S]`, codes of one book frame by frame `[T]`."""
ORDER = Flattened()
"""Codes of several books stand frame by frame, coarse to fine."""
SPARE = 3
"""Units that a clip may have more or fewer than its codes say: tokenizers treat the ends of a clip differently."""


class Pass(Config):
    """One model of a cascade: the books that it `reads` and those that it `writes`.

    `chunk`: frames that are a row of their own, without overlap; None: all of a clip is one.
    """

    reads: tuple[str, ...]
    writes: tuple[str, ...]
    chunk: int | None = None

    def __post_init__(self) -> None:
        require(bool(self.writes), "writes", self.writes, "at least one book")
        require(self.chunk is None or self.chunk >= 1, "chunk", self.chunk, "must be at least 1 frame")


class Cascade(Config):
    """`semantic` units, the codes of an `acoustic` tokenizer, and the models that write them, in their order.

    A row is `<s>`, what is read and what is written: units without repetitions closed by `</s>`, for nothing else tells
    how many there are; codes flattened frame by frame, closed too where they are written of units, which without
    repetitions do not tell how long they last. Raises `UserError` when the rates do not fit, when a book is
    read that no pass before writes, and when one is written twice.
    """

    semantic: TokenSpec
    acoustic: TokenSpec
    passes: tuple[Pass, ...]

    def __post_init__(self) -> None:
        slow, fast = self.semantic.frames_per_second, self.acoustic.frames_per_second
        rule = f"the codes' {fast:g} must be a whole multiple of it"
        require(fast >= slow and (fast / slow).is_integer(), "semantic units a second", f"{slow:g}", rule)
        clash = self.units in self.sizes_of_codes
        require(not clash, "semantic codebook", self.units, "the acoustic tokenizer has a book of that name too")
        written: list[str] = []
        for number, one in enumerate(self.passes):
            self._check(f"passes[{number}]", one, written)
            written.extend(one.writes)

    def _check(self, where: str, one: Pass, written: Sequence[str]) -> None:
        known = [self.units, *self.sizes_of_codes]
        for name in one.reads:
            rule = f"nobody before it writes that book ({', '.join(written) or 'nothing is written'})"
            require(name in written, f"{where}.reads", name, rule)
        for name in one.writes:
            require(name in known, f"{where}.writes", name, f"the tokenizers have {', '.join(known)}")
            require(name not in written, f"{where}.writes", name, "a pass before it writes that book already")
        alone = self.units not in one.writes or len(one.writes) == 1
        require(alone, f"{where}.writes", one.writes, "units and codes have other rates: one pass for each")
        whole = one.chunk is None or self.units not in (*one.reads, *one.writes)
        require(whole, f"{where}.chunk", one.chunk, "runs of units have no frames at which they could be cut")

    @property
    def units(self) -> str:
        """Name of the book of semantic units."""
        return self.semantic.codebooks[0].name

    @property
    def sizes_of_codes(self) -> dict[str, int]:
        """Ids of every book of codes, coarse to fine."""
        return {book.name: book.size for book in self.acoustic.codebooks}

    @property
    def frames_per_unit(self) -> int:
        """Frames of codes in the time of one frame of units."""
        return round(self.acoustic.frames_per_second / self.semantic.frames_per_second)

    def is_closed(self, number: int) -> bool:
        """Whether what a pass writes ends with `</s>`: units do, and codes that are written of them."""
        one = self.passes[number]
        return self.units in (*one.reads, *one.writes)

    def vocabulary(self, number: int) -> Vocabulary:
        """Ids of the model of a pass: every book that it reads or writes has a range."""
        one, sizes = self.passes[number], {self.units: self.semantic.units, **self.sizes_of_codes}
        names = [name for segment in (*self._read_segments(one), one.writes) for name in segment]
        return Vocabulary(ranges=tuple((name, sizes[name]) for name in names))

    def common_frames(self, units: int, frames: int) -> int:
        """Frames of codes of which both are there, for a clip of so many frames of units and of codes.

        Raises `UserError` when they differ by more than the ends of a clip: a rate is not what it is said to be then.
        """
        each = self.frames_per_unit
        rule = f"the {frames} frames of codes are {each} to a unit: about {frames // each} units are expected"
        near = abs(units - frames / each) <= max(SPARE, 0.01 * units)
        require(near, "units of a clip", units, rule)
        return min(units, frames // each) * each

    def chunks(self, number: int, books: Books, frames: int | None = None) -> list[dict[str, np.ndarray]]:
        """What a pass reads and writes of a clip, cut into the parts that are rows of their own; the last is short.

        `frames` of the clip; None: as many as the longest of these books has.
        """
        one = self.passes[number]
        held = {name: books[name] for name in (*one.reads, *one.writes) if name in books}
        if one.chunk is None:
            return [held]
        frames = max((len(values) for values in held.values()), default=0) if frames is None else frames
        starts = range(0, frames, one.chunk)
        return [{name: values[start : start + one.chunk] for name, values in held.items()} for start in starts]

    def row(self, number: int, books: Books) -> tuple[Int[np.ndarray, "S"], Bool[np.ndarray, "S"]]:
        """Ids of a whole row, int32, and which of them the pass writes: the targets of its loss."""
        prompt = self.prompt(number, {name: books[name] for name in self.passes[number].reads if name in books})
        written = self._segment(number, self.passes[number].writes, books)
        if self.is_closed(number) and self.units not in self.passes[number].writes:
            written = np.append(written, self.vocabulary(number).eos_id).astype(np.int32)
        return np.concatenate([prompt, written]), np.arange(len(prompt) + len(written)) >= len(prompt)

    def prompt(self, number: int, books: Books) -> Int[np.ndarray, "S"]:
        """The row up to where the model begins to write, int32; what is there of the books it writes comes first.

        Raises `UserError` for a book that the pass reads and nobody wrote.
        """
        one, parts = self.passes[number], [np.array([self.vocabulary(number).bos_id])]
        parts += [self._segment(number, names, books) for names in self._read_segments(one)]
        if any(name in books for name in one.writes):
            begun = self._segment(number, one.writes, books)
            parts.append(begun[:-1] if one.writes == (self.units,) else begun)
        return np.concatenate(parts).astype(np.int32)

    def books_of(self, number: int, ids: Int[np.ndarray, "S"]) -> dict[str, np.ndarray]:
        """The inverse of `row`, int32. What was never closed ends with the row."""
        one, vocabulary, books = self.passes[number], self.vocabulary(number), {}
        rest = np.asarray(ids)[1:]
        if self.units not in one.writes and len(rest) and rest[-1] == vocabulary.eos_id:
            rest = rest[:-1]
        segments = [*self._read_segments(one), one.writes]
        codes = sum(len(names) for names in segments if names != (self.units,))
        for names in segments:
            if names == (self.units,):
                end = int(np.argmax(np.append(rest == vocabulary.eos_id, True)))
                books[self.units] = self._checked(vocabulary, rest[:end])
                rest = rest[end + 1 :]
                continue
            frames = len(rest) // codes
            count, codes = frames * len(names), codes - len(names)
            books |= self._unflattened(vocabulary, names, rest[:count])
            rest = rest[count:]
        require(len(rest) == 0, "ids of a row", len(ids), f"{len(rest)} are left behind its whole frames")
        return books

    def legal(self, number: int, ends: bool = False) -> Bool[np.ndarray, "P V"]:
        """Which ids may be written, in a circle: one phase of units and their end, or one for each book of codes.

        With `ends` the end may stand where a frame of codes begins.
        """
        one, vocabulary = self.passes[number], self.vocabulary(number)
        if one.writes == (self.units,):
            return vocabulary.range_mask(self.units, "</s>")[None]
        of_codes = legal_ids(ORDER, 1, self._sizes(one.writes))
        legal = np.zeros((len(of_codes), vocabulary.size), bool)
        first = vocabulary.bounds(one.writes[0])[0]
        legal[:, first : first + of_codes.shape[1]] = of_codes
        legal[0, vocabulary.eos_id] = ends
        return legal

    def _segment(self, number: int, names: Sequence[str], books: Books) -> Int[np.ndarray, "S"]:
        """A part of a row, units closed."""
        vocabulary = self.vocabulary(number)
        for name in names:
            require(
                name in books, f"books of passes[{number}]", name, f"nobody wrote it ({', '.join(books) or 'none'})"
            )
        if tuple(names) == (self.units,):
            ids = vocabulary.encode_range(self.units, np.asarray(books[self.units]))
            return np.append(ids, vocabulary.eos_id).astype(np.int32)
        lengths = [len(books[name]) for name in names]
        require(len(set(lengths)) == 1, f"frames of {', '.join(names)}", lengths, "must be as many in each")
        codes = np.stack([np.asarray(books[name]) for name in names], axis=1)
        return row_of(ORDER, codes, self._sizes(names)) + vocabulary.bounds(names[0])[0]

    def _unflattened(self, vocabulary: Vocabulary, names: Sequence[str], ids: np.ndarray) -> dict[str, np.ndarray]:
        codes = codes_of(ORDER, ids - vocabulary.bounds(names[0])[0], self._sizes(names))
        return {name: codes[:, place] for place, name in enumerate(names)}

    def _checked(self, vocabulary: Vocabulary, ids: np.ndarray) -> Int[np.ndarray, "S"]:
        units, inside = vocabulary.decode_range(self.units, ids)
        require(bool(inside.all()), "ids of units", ids[~inside][:5].tolist(), f"not of the {self.units}")
        return np.asarray(units, np.int32)

    def _read_segments(self, one: Pass) -> list[tuple[str, ...]]:
        """Units for themselves, then the codes."""
        codes = tuple(name for name in one.reads if name != self.units)
        return [*([(self.units,)] if self.units in one.reads else []), *([codes] if codes else [])]

    def _sizes(self, names: Sequence[str]) -> list[int]:
        return [self.sizes_of_codes[name] for name in names]


def audiolm(semantic: TokenSpec, acoustic: TokenSpec, coarse: int = 4, chunk_s: float = 3.0) -> Cascade:
    """The three passes of AudioLM: units, the first `coarse` books given them, the others by chunks of `chunk_s`.

    With no books beyond the coarse ones there is no third pass (the paper's piano).
    """
    books = tuple(book.name for book in acoustic.codebooks)
    require(1 <= coarse <= len(books), "coarse", coarse, f"must lie within the {len(books)} books")
    units, chunk = (semantic.codebooks[0].name,), round(chunk_s * acoustic.frames_per_second)
    passes = [Pass(reads=(), writes=units), Pass(reads=units, writes=books[:coarse])]
    fine = [Pass(reads=books[:coarse], writes=books[coarse:], chunk=chunk)] if coarse < len(books) else []
    return Cascade(semantic=semantic, acoustic=acoustic, passes=(*passes, *fine))
