"""What decoders over several streams share: rows read as prompts and step by step, and the states of their stack."""

from abc import abstractmethod
from typing import Any

import flax.linen as nn
from jaxtyping import Array, Bool, Float, Int

from slm_jax.core.types import Frames
from slm_jax.nn.positions import last_real
from slm_jax.sequence_models.decoder import Decoder, State


class OverStreams(nn.Module):
    """Ids `[B, T, K1]`, a vector of all of them per step, through the stack of `config.body`.

    Whoever is one says what the vector of a step is (`embed`), what the stack makes of vectors (`extend`) and what is
    given for each step (`head`): logits, or what `entry` reads where the entries of a step are written in order.
    """

    config: Any

    stride = 1
    latency = 0

    @property
    def receptive_field(self) -> int | None:
        """Steps that can reach one output; None: all before it."""
        return self._decoder().receptive_field

    @abstractmethod
    def embed(self, ids: Int[Array, "B S K1"]) -> Float[Array, "B S D"]:
        """Vectors of steps."""

    @abstractmethod
    def extend(
        self,
        x: Float[Array, "B T D"],
        state: State,
        mask: Bool[Array, "B T"] | None = None,
        context: Frames | None = None,
    ) -> tuple[Float[Array, "B T D"], State]:
        """What the stack makes of the next vectors, and the new state; masked ones leave no trace."""

    @abstractmethod
    def head(self, features: Float[Array, "*B D"]) -> Float[Array, "*S"]:
        """What is given for a step, from what the stack made of it."""

    def initial_state(self, batch: int, capacity: int | None, dtype: Any = None) -> State:
        """Empty caches for rows of up to `capacity` steps (None: without end); no parameters needed."""
        return self._decoder().initial_state(batch, capacity, dtype)

    def step(
        self, ids: Int[Array, "B T K1"], state: State, mask: Bool[Array, "B T"] | None = None
    ) -> tuple[Float[Array, "B T *S"], State]:
        """`head` after each of the next steps (any number T) and the new state; masked ones leave no trace."""
        features, state = self.extend(self.embed(ids), state, mask)
        return self.head(features), state

    def prefill(
        self,
        ids: Int[Array, "B T K1"],
        state: State,
        mask: Bool[Array, "B T"] | None = None,
        context: Frames | None = None,
    ) -> tuple[Float[Array, "B *S"], State]:
        """`head` after the last real step of each row and the new state; padding may stand on either side."""
        features, state = self.extend(self.embed(ids), state, mask, context)
        return self.head(last_real(features, mask)), state

    def reset(self, state: State, rows: Bool[Array, "B"]) -> State:
        """With the given rows emptied."""
        return self._decoder().reset(state, rows)

    def _decoder(self) -> Decoder:
        """The stack without its weights: states are made outside of `apply`, where there are no sub-modules."""
        return Decoder(self.config.body, parent=None)
