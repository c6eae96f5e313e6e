"""Splits: a function of the id alone."""

import hashlib

from slm_jax.data.corpora.settings import CorpusConfig

SPLITS = ("train", "dev", "test")
SPLIT_NAMES = {"train": "train", "training": "train", "dev": "dev", "valid": "dev", "val": "dev", "validation": "dev",
               "eval": "dev", "test": "test", "testing": "test"}  # fmt: skip
"""What others call the splits."""


def split_of(id: str, config: CorpusConfig) -> str:
    """The split of an id: the first bytes of its hash, read as a number in [0, 1), against the shares."""
    place = int.from_bytes(hashlib.sha256(id.encode()).digest()[:8], "big") / 2**64
    if place < config.test_share:
        return "test"
    return "dev" if place < config.test_share + config.dev_share else "train"
