"""Splits: a function of what the corpus is split by, and of nothing else."""

import hashlib
import re
from collections.abc import Sequence

from slm_jax.data.corpora.settings import CorpusConfig

SPLITS = ("train", "dev", "test")
SPLIT_NAMES = {"train": "train", "training": "train", "dev": "dev", "valid": "dev", "val": "dev", "validation": "dev",
               "eval": "dev", "test": "test", "testing": "test"}  # fmt: skip
"""What others call the splits."""


def split_of(id: str, config: CorpusConfig, *, speaker: str = "", text: str = "") -> str:
    """The split of an item: the place of its key against the shares.

    The key is what `config.split_by` names; an item without a speaker or without words goes by its id. Texts are
    compared without case, spacing and punctuation.
    """
    place = _place(split_key(id, config, speaker=speaker, text=text))
    if place < config.test_share:
        return "test"
    return "dev" if place < config.test_share + config.dev_share else "train"


def split_key(id: str, config: CorpusConfig, *, speaker: str = "", text: str = "") -> str:
    """What decides the split of an item: items with the same key are never in two splits."""
    if config.split_by == "id":
        return id
    words = " ".join(re.findall(r"\w+", text.casefold()))
    return (speaker if config.split_by == "speaker" else words) or id


def dealt_out(keys: Sequence[str], config: CorpusConfig) -> dict[str, str]:
    """The split of each of a few keys: shares are rounded, and from three keys on no split that has a share is empty.

    Keys are taken by their place, so that a key that is added moves few others. Two keys or one are for training.
    """
    order = sorted(set(keys), key=_place)
    if len(order) < 3:
        return dict.fromkeys(order, "train")
    test, dev = (_count(share, len(order)) for share in (config.test_share, config.dev_share))
    while test + dev >= len(order):
        test, dev = (test - 1, dev) if test > dev else (test, dev - 1)
    names = ["test"] * test + ["dev"] * dev + ["train"] * (len(order) - test - dev)
    return dict(zip(order, names, strict=True))


def _count(share: float, keys: int) -> int:
    return max(1, round(share * keys)) if share else 0


def _place(key: str) -> float:
    """The first bytes of a key's hash, read as a number in [0, 1)."""
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big") / 2**64
