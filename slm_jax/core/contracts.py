"""The contracts between floors, as protocols: what a part must offer to be exchangeable.

Parts need not inherit from these; the tests under `tests/contracts` hold every part to its contract.
"""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool

from slm_jax.core.messages import Conversation, Message
from slm_jax.core.token_spec import TokenSpec
from slm_jax.core.types import Codes, Frames, Streams

Params = Any
Variables = Any
"""`{"params": ..., other collections}`."""
Batch = Any


@runtime_checkable
class Steppable(Protocol):
    """A layer that gives the same output whole and step by step.

    `step` leaves the state of a row untouched where the frame's mask is False. The layout of the state is the
    layer's own affair. `stride`: input frames per output frame. `latency`: input frames awaited beyond the current
    one. `receptive_field`: input frames that can reach one output frame, None when unbounded.
    """

    stride: int
    latency: int
    receptive_field: int | None

    def __call__(self, frames: Frames) -> Frames: ...
    def initial_state(self, batch: int, capacity: int, dtype: Any) -> Any: ...
    def step(self, frames: Frames, state: Any) -> tuple[Frames, Any]: ...
    def reset(self, state: Any, rows: Bool[Array, "B"]) -> Any: ...


@runtime_checkable
class Tokenizer(Protocol):
    """Waveforms at `spec.rate_hz` to tokens.

    `encode_all` gives the ids of each, frame by frame; where there are several codebooks a dict with the columns that
    `spec` names. `frame_count`: frames of so many samples; a waveform that has none is refused.
    """

    @property
    def spec(self) -> TokenSpec: ...
    def frame_count(self, n: Any) -> Any: ...
    def encode_all(self, waveforms: Sequence[np.ndarray]) -> list[Any]: ...


@runtime_checkable
class Scheme(Protocol):
    """Codes among themselves: a table [S, R, 2] of (time, codebook) per sequence step; `restore(arrange(x)) == x`."""

    def arrange(self, codes: Codes) -> Streams: ...
    def restore(self, streams: Streams) -> Codes: ...


@runtime_checkable
class Layout(Protocol):
    """Text with codes: slots that hold a piece of text, a frame, or both, whatever steps a scheme makes of a frame.

    `longest`: steps of the longest row that so many frames, which take so many steps, and so many text ids become.
    """

    def slots(self, said: Any, frames: int, rng: np.random.Generator) -> Any: ...
    def longest(self, steps: int, frames: int, text: int) -> int: ...


@runtime_checkable
class EncoderConfig(Protocol):
    """What the config of an encoder offers, so that assemblies can exchange encoders.

    The module that it makes is called `encoder(samples [B, N], mask [B, N], layer=None, collect=False,
    deterministic=True)` and gives `values [B, T, D]`, `mask [B, T]` and, with `collect`, `hidden [L + 1, B, T, D]`.
    `frame_count`: T of so many samples. `hop`: samples per frame.
    """

    @property
    def layers(self) -> int: ...
    @property
    def width(self) -> int: ...
    @property
    def hop(self) -> int: ...
    def make(self) -> Any: ...
    def frame_count(self, n: Any) -> Any: ...


@runtime_checkable
class Adapter(Protocol):
    """Frames to frames of another rate and width.

    The true lengths are in the mask that comes out. `config.frames_out(n)`, on plain integers, says how many frames
    come of n real ones (where that depends on what is in them, at most), so that a pipeline can make room for them;
    what does not fit is dealt with by a stated rule. No real frame gives none. `config.width`: channels that come out.
    `context` is for adapters that are conditioned on something. Training (`deterministic` False) may need the rng
    `dropout`.
    """

    config: Any

    def __call__(self, frames: Frames, context: Any = None, *, deterministic: bool = True) -> Frames: ...


class Term(NamedTuple):
    """One part of a loss over one (micro-)batch: a sum over real entries, how many there were, and its weight.

    `weight` does not depend on how a batch is cut.
    """

    total: jax.Array
    count: jax.Array  # type: ignore[assignment]  # tuples have a method of that name
    weight: Any = 1.0

    def share(self) -> jax.Array:
        """What one unit of `total` weighs in the loss: weight / count, 0 where nothing was counted."""
        count = jnp.asarray(self.count, jnp.float32)
        return jnp.where(count > 0, self.weight / jnp.where(count > 0, count, 1.0), 0.0)


class Loss(NamedTuple):
    """What an objective returns for one (micro-)batch.

    `terms`: parts by name. The training step adds their sums and counts over micro-batches and devices, then divides
    each once and weighs it, so that the loss is exact however a batch is cut. `metrics` maps a name to such a (sum,
    count) pair. `stats` (None, or a tree of sums, such as how often a code was chosen) is added up likewise and handed
    once per step to the rule of the player that owns the statistics.
    """

    terms: dict[str, Term]
    metrics: dict[str, tuple[jax.Array, jax.Array]]
    stats: Any = None

    def value(self) -> jax.Array:
        """sum_k weight_k total_k / count_k, as if this were all of the batch; float32."""
        return sum((term.share() * term.total for term in self.terms.values()), jnp.zeros((), jnp.float32))


SHOWN = "shown"
"""Where objectives find what a player of the step made of the batch: (arrays with a gradient, anything else)."""


@runtime_checkable
class Objective(Protocol):
    """A loss over one (micro-)batch.

    `variables` are all collections of the model (`{"params": ..., ...}`), of which only the leaves a player owns are
    differentiated; `frozen` holds trees that nobody trains (teacher, reference policy). Where a run mixes kinds of
    batch, the objective looks at which keys are there; `SHOWN` is one of them.
    """

    def __call__(self, variables: Variables, batch: Batch, rng: jax.Array, frozen: Any = None) -> Loss: ...


@runtime_checkable
class BatchIterator(Protocol):
    """An endless iterator over batches (dicts of numpy arrays of fixed shapes) that can be resumed exactly.

    The state is small JSON. Every batch carries `example` `[B]` int64: the position of each row in its source, by
    which errors name the offending examples.
    """

    def __iter__(self) -> Iterator[dict[str, Any]]: ...
    def __next__(self) -> dict[str, Any]: ...
    def get_state(self) -> dict[str, Any]: ...
    def set_state(self, state: dict[str, Any]) -> None: ...
    def close(self) -> None: ...


class Reply(NamedTuple):
    """What a system answers to one conversation.

    `trace` holds what a curious reader may want to see (ids, log-probabilities, units), by name, as plain values or
    arrays; what is in it is the system's own affair.
    """

    messages: tuple[Message, ...]
    trace: dict[str, Any]


class Spoken(NamedTuple):
    """What came out of one push: `samples` float32 [B, hop], 0 where a row rests or says nothing yet; `texts`: what
    each row wrote in it, '' for none."""

    samples: np.ndarray
    texts: tuple[str, ...]


@runtime_checkable
class Session(Protocol):
    """A batch of streams that are served together. Rows start, rest, stop and are reset alone.

    `push(samples [B, hop], active [B])` takes the next stretch of every active row and gives what came out of it
    (`Spoken`): a row that rests hears nothing, says nothing and does not change.
    """

    batch: int
    hop: int
    rate_hz: int

    def push(self, samples: Any, active: Any) -> Any: ...
    def reset(self, rows: Any) -> None: ...


@runtime_checkable
class System(Protocol):
    """A named system of the survey, trained: conversations in, replies out.

    `reads` and `writes`: subsets of {"speech", "text"}; speech is heard at `rate_hz`, and what comes at another rate is
    resampled or refused. A pure speech LM goes on with the only message. `key` is one key, split over the
    conversations, or one for each. `decoding` is a config of the system's own, whose fields people may change; None
    stands for the attribute of that name. A reply does not depend on what else is in the batch.
    """

    reads: frozenset[str]
    writes: frozenset[str]
    rate_hz: int
    decoding: Any

    def respond(self, conversations: Sequence[Conversation], decoding: Any, key: jax.Array) -> list[Reply]: ...


@runtime_checkable
class Scores(Protocol):
    """A system that can say how likely a conversation is: ln p of every token of its last message."""

    def log_prob(self, conversations: Sequence[Conversation]) -> list[Any]: ...


@runtime_checkable
class Opens(Protocol):
    """A system that streams."""

    def open(self, batch: int) -> Session: ...
