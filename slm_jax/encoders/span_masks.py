"""Masks that an encoder draws for itself while it is fine-tuned: spans of frames and bands of channels.

SpecAugment on features, as wav2vec 2.0 is tuned (Baevski et al. 2020, appendix B; fairseq `apply_mask`).
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Key

from slm_jax.core.config import Config
from slm_jax.core.errors import require


class SpanMasksConfig(Config):
    """How much is masked in training.

    Spans of `span` frames are drawn until they would cover the `share` of a row's real frames if none overlapped,
    `least` at least; spans of `channel_span` channels likewise for `channel_share`. Masked frames become the encoder's
    mask embedding, masked channels zero over the whole row.
    """

    share: float = 0.65
    span: int = 10
    channel_share: float = 0.0
    channel_span: int = 64
    least: int = 2

    def __post_init__(self) -> None:
        for name in ("share", "channel_share"):
            require(0.0 <= getattr(self, name) <= 1.0, name, getattr(self, name), "must lie in [0, 1]")
        for name in ("span", "channel_span"):
            require(getattr(self, name) >= 1, name, getattr(self, name), "must be at least 1")
        require(self.least >= 0, "least", self.least, "must be at least 0")

    def frames(self, key: Key[Array, ""], real: Bool[Array, "B T"]) -> Bool[Array, "B T"]:
        """Which frames are masked, all of them real."""
        return random_spans(key, real, self.share, self.span, self.least)

    def channels(self, key: Key[Array, ""], rows: int, width: int) -> Bool[Array, "B D"]:
        """Which channels of each row are masked."""
        everything = jnp.ones((rows, width), bool)
        return random_spans(key, everything, self.channel_share, self.channel_span, self.least)


def random_spans(
    key: Key[Array, ""], real: Bool[Array, "B T"], share: float, span: int, least: int
) -> Bool[Array, "B T"]:
    """The union of spans whose starts are drawn without replacement, row by row; nothing for a `share` of 0.

    Their number is `share * real / span`, rounded up or down at random so that its mean is exact. A row that is shorter
    than a span has one start.
    """
    if share == 0:
        return jnp.zeros_like(real)
    place, ends = jax.random.split(key)
    lengths = real.sum(-1, keepdims=True)
    starts = jnp.maximum(lengths - span + 1, jnp.minimum(lengths, 1))
    rounding = jax.random.uniform(ends, lengths.shape)
    count = jnp.maximum((share * lengths / span + rounding).astype(jnp.int32), least)
    time = jnp.arange(real.shape[1])
    scores = jnp.where(time < starts, jax.random.uniform(place, real.shape), jnp.inf)
    rank = jnp.argsort(jnp.argsort(scores, axis=-1), axis=-1)
    begun = jnp.cumsum((rank < jnp.minimum(count, starts)).astype(jnp.int32), axis=-1)
    before = jnp.pad(begun, ((0, 0), (span, 0)))[:, : real.shape[1]]
    return (begun > before) & real


def with_hidden_spans(
    encoder: nn.Module,
    x: Float[Array, "B T D"],
    mask: Bool[Array, "B T"],
    span_mask: Bool[Array, "B T"] | None,
    deterministic: bool,
) -> Float[Array, "B T D"]:
    """Frames with the encoder's `mask_embedding` where `span_mask` holds, or where `config.masks` draws it in training.

    For use inside the compact call of an encoder, whose parameter and rng `dropout` these are. Raises `UserError` for
    spans where its config has no mask embedding.
    """
    config = encoder.config  # type: ignore[attr-defined]
    if config.mask_embedding:
        init = nn.with_logical_partitioning(nn.initializers.uniform(1.0), ("embed",))
        mask_embedding = encoder.param("mask_embedding", init, (config.width,), jnp.float32)
    drawn = config.masks if span_mask is None and not deterministic else None
    span_mask = span_mask if drawn is None else drawn.frames(encoder.make_rng("dropout"), mask)
    if span_mask is not None:
        require(config.mask_embedding, "span_mask", span_mask.shape, "this encoder has no mask embedding")
        x = jnp.where(span_mask[..., None], mask_embedding.astype(x.dtype), x)
    if drawn is not None:
        x = jnp.where(drawn.channels(encoder.make_rng("dropout"), *x.shape[::2])[:, None], 0, x)
    return x
