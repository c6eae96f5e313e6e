"""Codecs from a hub folder, or from one of ours."""

from pathlib import Path

import jax
import jax.numpy as jnp

from slm_jax.assemblies.codec import CodecConfig
from slm_jax.assemblies.codec_tokenizer import CodecTokenizer
from slm_jax.core.errors import UserError
from slm_jax.interop.parts import open_source


def load_codec(source: str | Path, books: int | None = None) -> CodecTokenizer:
    """The codec in a hub folder, in one of ours, or `hub:NAME`.

    Raises `UserError` for another kind of model.
    """
    config, stored = open_source(str(source), "codec")
    if not isinstance(config, CodecConfig):
        raise UserError(f"codec is {str(source)!r}: it holds a {type(config).__name__}, and a codec is needed")
    return CodecTokenizer(config, {"params": jax.tree.map(jnp.asarray, stored)}, books)
