"""The pytree types that parts hand to each other.

Letters: B batch, N samples, T frames, S sequence steps after a layout, K codebooks, W words, D width.
Masks are True where the content is real; rows are right-padded unless a docstring says otherwise.
"""

import dataclasses
from collections.abc import Iterable
from typing import Any, TypeVar, dataclass_transform

import jax
from jaxtyping import Array, Bool, Float, Int

T = TypeVar("T")
EMPTY = -2
"""In ids of several streams: the entry holds nothing and nothing is drawn for it. (-1: nothing is known yet.)"""
ABSENT = -3
"""The same of an entry that adds no vector even where empty ones have one of their own (Moshi's zero token)."""
NO_ID = (EMPTY, ABSENT)


def static(**kwargs: Any) -> Any:
    """A dataclass field that is part of the tree's structure instead of one of its leaves."""
    return dataclasses.field(metadata={"static": True}, **kwargs)


@dataclass_transform(frozen_default=True, kw_only_default=False, field_specifiers=(static, dataclasses.field))
def pytree_dataclass(cls: type[T]) -> type[T]:
    """A frozen dataclass that is a pytree.

    Unflattening by-passes `__init__`: transformations put specs, shardings and None into the fields, which a
    run-time type check of the constructor would refuse.
    """
    cls = dataclasses.dataclass(frozen=True)(cls)
    fields = dataclasses.fields(cls)  # type: ignore[arg-type]
    leaves = tuple(f.name for f in fields if not f.metadata.get("static"))
    statics = tuple(f.name for f in fields if f.metadata.get("static"))

    def flatten_with_keys(value: Any) -> tuple[tuple, tuple]:
        children = tuple((jax.tree_util.GetAttrKey(name), getattr(value, name)) for name in leaves)
        return children, tuple(getattr(value, name) for name in statics)

    def unflatten(aux: tuple, children: Iterable[Any]) -> Any:
        value = object.__new__(cls)
        for name, item in (*zip(leaves, children, strict=True), *zip(statics, aux, strict=True)):
            object.__setattr__(value, name, item)
        return value

    jax.tree_util.register_pytree_with_keys(cls, flatten_with_keys, unflatten)
    return cls


@pytree_dataclass
class Waveform:
    """Samples in [-1, 1] at `rate_hz` samples per second."""

    samples: Float[Array, "B N"]
    mask: Bool[Array, "B N"]
    rate_hz: int = static(default=16_000)


@pytree_dataclass
class Frames:
    """Continuous features, one vector per frame."""

    values: Float[Array, "B T D"]
    mask: Bool[Array, "B T"]


@pytree_dataclass
class Codes:
    """Discrete tokens, K codebooks per frame; always `[B, T, K]`."""

    ids: Int[Array, "B T K"]
    mask: Bool[Array, "B T"]


@pytree_dataclass
class Streams:
    """What a sequence model reads: text in stream 0, K codebooks after it.

    `valid` marks entries that carry a token, `target_weight` says how much the loss counts each (0: not at all).
    `names` and `sizes` of the streams, where they are known.
    """

    ids: Int[Array, "B S K1"]
    valid: Bool[Array, "B S K1"]
    target_weight: Float[Array, "B S K1"]
    names: tuple[str, ...] = static(default=())
    sizes: tuple[int, ...] = static(default=())
