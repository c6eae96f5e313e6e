"""Codecs of a few thousand weights, drawn so that every layer is heard and many codes are chosen."""

import math

import jax
import jax.numpy as jnp
import numpy as np
from flax.core import meta

from slm_jax.assemblies.codec import CodecConfig
from slm_jax.decoders.seanet import SEANetDecoderConfig
from slm_jax.decoders.spectral import SpectralDecoderConfig
from slm_jax.encoders.seanet import SEANetEncoderConfig
from slm_jax.encoders.spectral import SpectralEncoderConfig
from slm_jax.nn.frame_transformer import FrameTransformerConfig
from slm_jax.quantizers.codebooks import CodebookConfig
from slm_jax.quantizers.parallel import ParallelVQConfig
from slm_jax.quantizers.residual import ResidualVQConfig

BOOK = CodebookConfig(size=32, width=6, learning="gradient")
VQ = ResidualVQConfig(width=12, books=2, codebook=BOOK, projection="around")
MIRRORED = {"filters": 4, "width": 12, "strides": (2, 3), "kernel": 5, "last_kernel": 3, "lstm": 1}
SILENT = {**MIRRORED, "before": "zeros", "lstm": 0, "shortcut": False, "weight_norm": False}


def small_codec(shape, **changes):
    """A codec of SEANet's form, of 6 samples a latent."""
    encoder, decoder = SEANetEncoderConfig(**shape), SEANetDecoderConfig(**shape)
    return CodecConfig(encoder=encoder, decoder=decoder, quantizer=VQ).replace(**changes)


CODECS = {
    "as EnCodec": small_codec(MIRRORED),
    "as Mimi": small_codec(
        SILENT,
        stride=2,
        whole=True,
        quantizer=ParallelVQConfig(parts=(VQ.replace(books=1), VQ)),
        context=FrameTransformerConfig(width=12, layers=2, heads=2, hidden=20, window=4, scale=0.5),
    ),
    "over spectra": CodecConfig(
        encoder=SpectralEncoderConfig(width=12, inner=16, blocks=2, kernel=3, mels=4, n_fft=64, hop=16),
        decoder=SpectralDecoderConfig(width=12, inner=16, blocks=2, kernel=3, n_fft=64, hop=16),
        quantizer=VQ,
        whole=True,
        rate_hz=16_000,
    ),
}


def drawn_variables(config, seed=0):
    """All collections: kernels that keep what goes through them as loud as it was, codes of unit size."""
    return drawn_like(config.make(), jax.ShapeDtypeStruct((1, config.unit), jnp.float32), seed=seed)


def drawn_like(module, *inputs, seed=0):
    """The same of any part of a codec; NumPy draws at once what XLA would compile for seconds."""
    shapes = meta.unbox(jax.eval_shape(module.init, jax.random.key(0), *inputs))
    rng = np.random.default_rng(seed)

    def draw(path, leaf):
        name = path[-1].key
        noise = rng.standard_normal(leaf.shape)
        if name == "weight_g" or "scale" in name:
            noise = 1.2 + 0.2 * noise
        elif "bias" in name:
            noise *= 0.2
        elif name not in ("entries", "sums", "usage"):
            noise *= 1.5 / math.sqrt(np.prod(leaf.shape[:-1]))
        return jnp.asarray(np.abs(noise) if name == "usage" else noise, leaf.dtype)

    return jax.tree_util.tree_map_with_path(draw, shapes)
