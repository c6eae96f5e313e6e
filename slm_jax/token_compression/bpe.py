"""Byte-pair encoding over unit ids, on the `tokenizers` library.

Each unit is one character of Unicode's two private planes, so that no rule about text (case, spaces, normal forms) can
touch it. An utterance is one word: merges never reach from one utterance into the next.
"""

import json
from collections.abc import Iterable

import numpy as np
from jaxtyping import Int
from tokenizers import Tokenizer, models, trainers

from slm_jax.core.config import content_hash
from slm_jax.core.errors import UserError, require
from slm_jax.core.paths import Place, as_path

FORMAT_VERSION = 1
_PLANES = ((0xF0000, 0xFFFFE), (0x100000, 0x10FFFE))  # private use; first and one past the last usable character
MAX_UNITS = sum(stop - start for start, stop in _PLANES)


class UnitBPE:
    """Byte-pair encoding of sequences over `units` different ids.

    Token ids below `units` are the units themselves; each higher one stands for a longer string of units.
    `decode(encode(x)) == x` for every x, also for units that never occurred in training.
    """

    def __init__(self, units: int, tokenizer: Tokenizer) -> None:
        self.units = units
        self._tokenizer = tokenizer
        tokens = [tokenizer.id_to_token(token) or "" for token in range(tokenizer.get_vocab_size())]
        self._lengths = np.asarray([len(token) for token in tokens])
        self._starts = np.cumsum(self._lengths) - self._lengths
        self._flat = _to_units("".join(tokens))
        in_order = np.array_equal(self._flat[:units], np.arange(units)) and (self._lengths[:units] == 1).all()
        require(bool(in_order), "units", units, "tokens below it must be the units")

    @classmethod
    def train(
        cls,
        utterances: Iterable[np.ndarray],
        *,
        units: int,
        vocabulary: int,
        longest: int | None = None,
    ) -> "UnitBPE":
        """Learn merges from rows `[T]` of units until there are `vocabulary` tokens or no pair occurs twice.

        `longest`: the most units one token may stand for. Raises `UserError` for a unit outside `[0, units)`.
        """
        require(0 < units <= MAX_UNITS, "units", units, f"between 1 and {MAX_UNITS}")
        require(longest is None or longest >= 2, "longest", longest, "at least 2 units, or None")
        require(vocabulary >= units, "vocabulary", vocabulary, f"at least the number of units, {units}")
        tokenizer = Tokenizer(models.BPE())
        trainer = trainers.BpeTrainer(
            vocab_size=vocabulary,
            min_frequency=2,
            show_progress=False,
            initial_alphabet=[_character(unit) for unit in range(units)],
            max_token_length=None if longest is None else longest + 1,  # the library stops one short of it
        )
        texts = (_to_text(utterance, units) for utterance in utterances)
        tokenizer.train_from_iterator(texts, trainer)
        return cls(units, tokenizer)

    def __len__(self) -> int:
        """Number of tokens."""
        return len(self._lengths)

    def encode(self, utterance: Int[np.ndarray, "T"]) -> Int[np.ndarray, "S"]:
        """Token ids (int32) of one utterance; raises `UserError` for a unit outside `[0, units)`."""
        return np.asarray(self._tokenizer.encode(_to_text(utterance, self.units)).ids, np.int32)

    def decode(self, tokens: Int[np.ndarray, "S"]) -> Int[np.ndarray, "T"]:
        """The units (int32) that the tokens stand for; raises `UserError` for an id outside the vocabulary."""
        tokens = np.asarray(tokens, np.int64)
        _require_range(tokens, len(self), "token")
        lengths = self._lengths[tokens]
        within = np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)
        return self._flat[np.repeat(self._starts[tokens], lengths) + within]

    def token_lengths(self) -> Int[np.ndarray, "V"]:
        """How many units each token stands for."""
        return self._lengths.copy()

    def save(self, path: Place) -> None:
        """Write all of it as one JSON file."""
        as_path(path).write_text(json.dumps(self._to_json()), encoding="utf-8")

    @classmethod
    def load(cls, path: Place) -> "UnitBPE":
        """Read what `save` wrote; raises `UserError` for another kind of file."""
        try:
            data = json.loads(as_path(path).read_text(encoding="utf-8"))
            require(data["format"] == FORMAT_VERSION, "format", data["format"], f"this version reads {FORMAT_VERSION}")
            return cls(data["units"], Tokenizer.from_str(json.dumps(data["tokenizer"])))
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(f"{str(path)!r} is not a file of a unit BPE: {error}") from error

    def content_hash(self) -> str:
        """Equal merges, equal hash."""
        return content_hash(self._to_json())

    def _to_json(self) -> dict:
        return {"format": FORMAT_VERSION, "units": self.units, "tokenizer": json.loads(self._tokenizer.to_str())}


def _character(unit: int) -> str:
    first = _PLANES[0][1] - _PLANES[0][0]
    return chr(_PLANES[0][0] + unit) if unit < first else chr(_PLANES[1][0] + unit - first)


def _to_text(utterance: Int[np.ndarray, "T"], units: int) -> str:
    utterance = np.asarray(utterance, np.int64)
    _require_range(utterance, units, "unit")
    first = _PLANES[0][1] - _PLANES[0][0]
    points = np.where(utterance < first, utterance + _PLANES[0][0], utterance - first + _PLANES[1][0])
    return points.astype("<u4").tobytes().decode("utf-32-le")


def _to_units(text: str) -> Int[np.ndarray, "T"]:
    points = np.frombuffer(text.encode("utf-32-le"), "<u4").astype(np.int64)
    first = _PLANES[0][1] - _PLANES[0][0]
    return np.where(points < _PLANES[1][0], points - _PLANES[0][0], points - _PLANES[1][0] + first).astype(np.int32)


def _require_range(ids: Int[np.ndarray, "T"], count: int, name: str) -> None:
    wrong = ids[(ids < 0) | (ids >= count)]
    if len(wrong):
        raise UserError(f"{name} is {int(wrong[0])}: ids lie in [0, {count})")
