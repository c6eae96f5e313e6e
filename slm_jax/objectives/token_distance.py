"""Explicit alignment: how far what is read of speech is from the vectors of the words that are said.

A segmenter makes one vector for each token of what is said out of the vectors of a clip; a distance holds it to the
token's own vector in the language model's table (Wav2Prompt, arXiv 2406.00522, which has continuous integrate-and-fire
for a segmenter and adds the distance to the cross-entropy; the mix is not told there and is a weight here).
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from slm_jax.core.config import Config
from slm_jax.core.contracts import Batch
from slm_jax.core.errors import require
from slm_jax.core.types import Frames

DISTANCES = ("mse", "cosine", "contrastive")
MANY = 100_000
EPSILON = 1e-8


class TimedSegmentsConfig(Config):
    """A token's vector is the mean of those that stand for the stretch in which it is said.

    For adapters whose vectors stand for equal stretches of time. A batch says when each token is said, `token_spans`
    `[B, L, 2]` in frames of the encoder: as a forced aligner found it, or as the corpus knows it.
    """

    timed = True

    def check(self, adapter: Any) -> None:
        """Raise `UserError` for an adapter whose vectors stand for no stretch of time."""
        self.frames_per_vector(adapter)

    def frames_per_vector(self, adapter: Any) -> float:
        """Frames that a vector stands for."""
        one, two = adapter.frames_out(MANY), adapter.frames_out(2 * MANY)
        rule = "its vectors stand for no stretch of time: it gives as many of any clip, or as its labels say"
        require(abs(two - 2 * one) <= 2 and not hasattr(adapter, "segments"), "adapter", type(adapter).__name__, rule)
        return MANY / one

    def segment(self, speech: Frames, batch: Batch, adapter: Any) -> Frames:
        """Frames [B, M, D] as one vector for each token, [B, L, D]; real where anything is heard of the token."""
        size = self.frames_per_vector(adapter)
        start, end = jnp.moveaxis(batch["token_spans"].astype(jnp.float32), -1, 0)
        begins = size * jnp.arange(speech.mask.shape[1], dtype=jnp.float32)
        shared = jnp.minimum(end[..., None], begins + size) - jnp.maximum(start[..., None], begins)
        weight = jnp.maximum(shared, 0.0) * speech.mask[:, None, :]
        total = weight.sum(-1, keepdims=True)
        means = jnp.einsum("blm,bmd->bld", weight / jnp.maximum(total, EPSILON), speech.values.astype(jnp.float32))
        return Frames(means, batch["token_mask"] & (total[..., 0] > EPSILON))


class OrderedSegmentsConfig(Config):
    """The vectors of a clip are those of its tokens, one each, in their order.

    For adapters that give a vector for each token themselves: by integrate-and-fire, or by a CTC whose labels are the
    tokens. Tokens behind the last vector count for nothing (metric `missing`).
    """

    timed = False

    def check(self, adapter: Any) -> None:
        """Any adapter may give a vector for each token."""

    def segment(self, speech: Frames, batch: Batch, adapter: Any) -> Frames:
        """Frames [B, M, D] as the first L of them."""
        count, there = batch["token_mask"].shape[1], speech.mask.shape[1]
        missing = max(count - there, 0)
        values = jnp.pad(speech.values, ((0, 0), (0, missing), (0, 0)))[:, :count].astype(jnp.float32)
        mask = jnp.pad(speech.mask, ((0, 0), (0, missing)))[:, :count]
        return Frames(values, batch["token_mask"] & mask)


class TokenDistanceConfig(Config):
    """`distance` of each token's vector from its row of the table, `weight` times in the loss.

    "mse": squared difference, as a share of the mean square of the rows (1 is what silence scores, whatever the scale
    of the table). "cosine": one minus the cosine. "contrastive": nats of the right one among all tokens of the batch,
    by cosines over `temperature` (InfoNCE); rows of the same token are no rivals. `segmenter`: what makes a vector for
    each token, `TimedSegmentsConfig` or `OrderedSegmentsConfig`; another kind has `timed`, `check` and `segment`.
    """

    weight: float = 1.0
    distance: str = "mse"
    temperature: float = 0.1
    segmenter: Config = TimedSegmentsConfig()

    def __post_init__(self) -> None:
        require(self.distance in DISTANCES, "distance", self.distance, f"must be one of {', '.join(DISTANCES)}")
        require(self.weight > 0, "weight", self.weight, "must be above 0")
        require(self.temperature > 0, "temperature", self.temperature, "must be above 0")


class Distances(NamedTuple):
    """Sums over the tokens that count, their number, those whose nearest row is their own; tokens without a vector."""

    total: Float[Array, ""]
    count: Float[Array, ""]  # type: ignore[assignment]  # tuples have a method of that name
    nearest: Float[Array, ""]
    missing: Float[Array, ""]


def token_distances(
    config: TokenDistanceConfig,
    found: Frames,
    rows: Float[Array, "B L D"],
    ids: Int[Array, "B L"],
    told: Bool[Array, "B L"],
) -> Distances:
    """How far the vectors `found` of tokens `ids` are from their `rows`, which get no gradient; `told`: real tokens."""
    rows = jax.lax.stop_gradient(rows.astype(jnp.float32))
    real = found.mask.astype(jnp.float32)
    cosines = _unit(found.values).reshape(-1, rows.shape[-1]) @ _unit(rows).reshape(-1, rows.shape[-1]).T
    flat, known = ids.reshape(-1), told.reshape(-1)
    nearest = flat[jnp.where(known, cosines, -jnp.inf).argmax(-1)] == flat
    values = _values(config, found.values, rows, cosines, flat, known)
    counted = (found.mask.reshape(-1) & nearest).sum()
    return Distances(
        (values * real).sum(), real.sum(), counted.astype(jnp.float32), (told & ~found.mask).sum().astype(jnp.float32)
    )


def _values(
    config: TokenDistanceConfig,
    found: Float[Array, "B L D"],
    rows: Float[Array, "B L D"],
    cosines: Float[Array, "N N"],
    ids: Int[Array, "N"],
    known: Bool[Array, "N"],
) -> Float[Array, "B L"]:
    if config.distance == "mse":
        scale = (jnp.square(rows).mean(-1).reshape(-1) * known).sum() / jnp.maximum(known.sum(), 1)
        return jnp.square(found.astype(jnp.float32) - rows).mean(-1) / jnp.maximum(scale, EPSILON)
    own = jnp.diagonal(cosines)
    if config.distance == "cosine":
        return (1.0 - own).reshape(rows.shape[:2])
    rival = known[None, :] & (ids[None, :] != ids[:, None])
    scores = jnp.where(rival | jnp.eye(len(ids), dtype=bool), cosines / config.temperature, -jnp.inf)
    return (jax.nn.logsumexp(scores, axis=-1) - own / config.temperature).reshape(rows.shape[:2])


def _unit(x: Float[Array, "B L D"]) -> Float[Array, "B L D"]:
    """Of length one; a vector of zeros keeps a gradient that is finite."""
    wide = x.astype(jnp.float32)
    return wide * jax.lax.rsqrt(jnp.square(wide).sum(-1, keepdims=True) + EPSILON)
