"""What a codec of pitch minimises: F0 where voiced, whether it is voiced, and to stay near its codes.

Batch keys: `tracks [B, P, 2]` (F0 as the codec's features say, voicing 0 or 1), `track_mask [B, P]`, and `example [B]`,
by which the rows are told apart that lend their vectors to codes nobody chose. P is a multiple of the codec's hop.
Source: Polyak et al. 2021, whose decoder repeats both channels by squared error alone.
"""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from slm_jax.assemblies.pitch_codec import PitchCodec, PitchCodecConfig, voicing_of
from slm_jax.core.config import Config
from slm_jax.core.contracts import Loss, Term
from slm_jax.core.types import Frames
from slm_jax.quantizers.codebooks import COLLECTION


class PitchLossConfig(Config):
    """Weights.

    `f0`: squared error over voiced values. `voicing`: cross-entropy. `commitment`: of latents to codes. `codes`: of
    codes to latents, where no averages move them.
    """

    f0: float = 1.0
    voicing: float = 0.5
    commitment: float = 0.25
    codes: float = 1.0


class PitchCodesObjective:
    """The loss of one batch; counts values of F0 and codes."""

    def __init__(self, config: PitchLossConfig, codec: PitchCodec) -> None:
        self.config, self.codec = config, codec

    def __call__(self, variables: Any, batch: Any, rng: jax.Array, frozen: Any = None) -> Loss:
        c, tracks = self.config, batch["tracks"]
        coded = self.codec.apply(variables, Frames(tracks, batch["track_mask"]), batch["example"])
        real, made = batch["track_mask"], coded.tracks.values
        voiced = real & (tracks[..., 1] > 0.5)
        wrong = real & (voicing_of(self.codec.config, made) != voiced)
        logits = made[..., 1] - self.codec.config.voiced_above
        values, every = voiced.sum().astype(jnp.float32), real.sum().astype(jnp.float32)
        squares = jnp.where(voiced, jnp.square(made[..., 0] - tracks[..., 0]), 0.0).sum()
        crosses = optax.sigmoid_binary_cross_entropy(logits, voiced.astype(jnp.float32))
        mask, quantized = coded.latents.mask, coded.quantized
        codes = mask.sum().astype(jnp.float32)
        terms = {
            "f0": Term(squares, values, c.f0),
            "voicing": Term(jnp.where(real, crosses, 0.0).sum(), every, c.voicing),
            "commitment": Term(_of_real(quantized.commitment, mask), codes, c.commitment),
        }
        if quantized.seen is None:
            terms["codes"] = Term(_of_real(quantized.codes, mask), codes, c.codes)
        metrics = {name: (term.total, term.count) for name, term in terms.items()}
        metrics["voicing_error"] = (wrong.sum().astype(jnp.float32), every)
        return Loss(terms, metrics, None if quantized.seen is None else {COLLECTION: quantized.seen})


def moved_pitch_codes(config: PitchCodecConfig, variables: Any, stats: Any) -> dict[str, Any]:
    """The codebook after a step."""
    books = variables[COLLECTION]["quantizer"]
    return {COLLECTION: {"quantizer": config.quantizer.moved(books, stats[COLLECTION])}}


def _of_real(values: jax.Array, mask: jax.Array) -> jax.Array:
    return jnp.where(mask[..., None], values, 0.0).sum()
