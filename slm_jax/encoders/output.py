"""What encoders give."""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from slm_jax.core.types import Frames, pytree_dataclass


@pytree_dataclass
class EncoderOutput:
    """`values`: the frames asked for; `hidden`: input of the first layer and every layer's output, when asked for.

    `features` are the front end's, before the projection. `mask` is that of the frames. Values of masked frames
    mean nothing.
    """

    values: Float[Array, "B T D"]
    mask: Bool[Array, "B T"]
    features: Float[Array, "B T C"]
    hidden: Float[Array, "L B T D"] | None = None

    @property
    def frames(self) -> Frames:
        """Values with their mask."""
        return Frames(self.values, self.mask)


def hidden_states(first: Float[Array, "B T D"], outputs: Float[Array, "L B T D"] | None) -> Float[Array, "_ B T D"]:
    """What the first layer read, then what each layer gave (None where none was run)."""
    return first[None] if outputs is None else jnp.concatenate([first[None], outputs])
