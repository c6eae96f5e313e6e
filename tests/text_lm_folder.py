"""A small language model of text on drawn weights in a folder as the hub lays it out, with a tokenizer of words."""

from pathlib import Path

import jax
import jax.numpy as jnp

from slm_jax.interop.model import export
from slm_jax.sequence_models.presets import llama
from tests.contracts.checks import random_params
from tests.whisper_folder import write_tokenizer

CONFIG = llama("7b", layers=1, width=8, heads=2, kv_heads=2, hidden=16, vocabulary=48, max_positions=256)
"""The words of the small Whisper, and some rows more."""


def write_text_lm(folder: Path) -> Path:
    """The whole folder, which must not be there yet."""
    params = random_params(CONFIG.make(), jax.random.key(3), jnp.zeros((1, 2), jnp.int32), scale=0.5)
    export(CONFIG, params, folder)
    return write_tokenizer(folder)
