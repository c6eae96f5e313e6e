"""A teacher for the first book of a codec: a layer of a speech encoder is to follow from what the book chose.

Source: Défossez et al. 2024, section 3.3.3 (cosine distance behind a linear map, the mean of neighbouring frames of the
teacher); Zhang et al. 2023, section 3.2. The map lies in `params/lesson`, and no codec that is used has it.
"""

import dataclasses
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float

from slm_jax.assemblies.phonetic_tokenizer import EncoderFeaturesConfig
from slm_jax.core.contracts import Term
from slm_jax.core.trees import variables_of
from slm_jax.core.types import Frames
from slm_jax.nn.linear import Linear
from slm_jax.objectives.vocoder import real_waveform_of

LESSON = "lesson"
EPSILON = 1e-8


@dataclasses.dataclass(frozen=True)
class Teacher:
    """`features` of sound at 16 kHz, `ratio` of them for each latent of a codec; `span` latents are heard for one.

    What it hears is `heard`, `heard_mask` of a batch, or its `samples` where these are at 16 kHz. Its parameters are
    `frozen["frozen"]["teacher"]`.
    """

    features: EncoderFeaturesConfig
    ratio: int
    span: int
    weight: float

    @property
    def lesson(self) -> Linear:
        """The map from what the book chose to the teacher's channels."""
        return Linear(self.features.encoder.width)

    def term(self, variables: Any, frozen: Any, batch: Any, first: Float[Array, "B T E"]) -> Term:
        """Mean over the frames that the teacher heard of one minus the cosine."""
        own_rate = "heard" not in batch
        heard = (
            real_waveform_of(batch) if own_rate else batch["heard"],
            batch["sample_mask" if own_rate else "heard_mask"],
        )
        said = self.features.extract(frozen["frozen"]["teacher"], *heard)
        wanted = spanned(said, first.shape[1], self.ratio, self.span)
        near = cosine(self.lesson.apply(variables_of(variables, LESSON), first), wanted.values)
        real = wanted.mask.astype(jnp.float32)
        return Term(((1 - near) * real).sum(), real.sum(), self.weight)


def spanned(frames: Frames, count: int, ratio: int, span: int) -> Frames:
    """`count` means of the real ones among `span * ratio` frames, from every `ratio`-th on; masked where none is."""
    missing = (count + span - 1) * ratio - frames.values.shape[1]
    mask = jnp.pad(frames.mask, ((0, 0), (0, max(0, missing))))[:, : (count + span - 1) * ratio]
    values = jnp.pad(frames.values, ((0, 0), (0, max(0, missing)), (0, 0)))[:, : mask.shape[1]]
    real = mask.astype(jnp.float32)
    sums, counts = (_sums(x, ratio, count, span) for x in (values * real[..., None], real[..., None]))
    return Frames(sums / jnp.maximum(counts, 1.0), counts[..., 0] > 0)


def _sums(values: Float[Array, "B F D"], ratio: int, count: int, span: int) -> Float[Array, "B T D"]:
    """Sums over every `ratio` entries, and over `span` of these from each on."""
    each = values.reshape(values.shape[0], -1, ratio, values.shape[-1]).sum(2)
    return sum((each[:, place : place + count] for place in range(1, span)), each[:, :count])


def cosine(one: Float[Array, "B T D"], other: Float[Array, "B T D"]) -> Float[Array, "B T"]:
    """Of the angles between vectors."""
    lengths = jnp.linalg.norm(one, axis=-1) * jnp.linalg.norm(other, axis=-1)
    return (one * other).sum(-1) / jnp.maximum(lengths, EPSILON)
