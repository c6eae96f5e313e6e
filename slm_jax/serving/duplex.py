"""A conversation without turns: every frame the model hears one frame of the other side, writes text and speaks one.

    samples -> codec -> codes of the frame -> temporal step -> text, codes -> complete frame -> codec -> samples

all of it one program (Moshi, Défossez et al. 2024, section 3.4). The model hears frame t before it writes step t + 1,
so that its frame t is complete with the push of frame t where its codes are one step late at most.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Key

from slm_jax.assemblies.codec_tokenizer import CodecTokenizer
from slm_jax.core.contracts import Spoken
from slm_jax.core.errors import require
from slm_jax.core.types import EMPTY, Codes, Frames, pytree_dataclass
from slm_jax.generation.advance import Decoding, State, StepIn, stream_sizes
from slm_jax.generation.decode import layers_apart
from slm_jax.generation.prompts import row_keys
from slm_jax.schemes.table import Scheme
from slm_jax.serving.spelling import Spelling

Rows = Bool[np.ndarray, "B"]


class Sides(NamedTuple):
    """By how many steps each book of a side stands later than its frame."""

    own: tuple[int, ...]
    other: tuple[int, ...]

    @property
    def behind(self) -> int:
        """Steps that have to be written after the one at which a frame begins, before it is spoken."""
        return max(1, *self.own)


@pytree_dataclass
class DuplexState:
    """Where every row stands: both halves of the codec, the model, and the steps and frames that delays reach back to.

    `heard`: codes of the other side, the last frame last; `said`: own codes of the last steps written.
    """

    ears: Any
    heard: Int[Array, "B D K"]
    lm: State
    said: Int[Array, "B D2 K"]
    voice: Any


class DuplexSession:
    """`core.contracts.Session` of a model of text and two sides, under `generation.advance`.

    Text, codes and sound are those of whole rows (`generation.by_scheme.filled_in`) with the same keys, whatever other
    rows do. A row that is new, or reset, writes its first step before it hears anything. `late`: samples by which
    sound comes out behind the frame that it belongs to. `ids` [B, 1 + K + K]: what the last push wrote.
    """

    def __init__(
        self,
        codec: CodecTokenizer,
        steps: Decoding,
        params: Any,
        sides: Sides,
        spelling: Spelling,
        batch: int,
        key: Key[Array, ""] | Key[Array, "B"],
    ) -> None:
        """Opens `batch` new rows. Raises `UserError` for a codec that does not stream frame by frame, and for a model
        whose caches fill up or whose streams are others."""
        require_frames(codec)
        streams, given = len(stream_sizes(steps.model)), 1 + len(sides.own) + len(sides.other)
        require(streams == given, "streams", streams, f"the model of a duplex session has {given}: text, own, other's")
        self.batch, self.hop, self.rate_hz = batch, codec.config.hop, codec.config.rate_hz
        self.late = (sides.behind - 1) * self.hop + codec.config.late
        self.ids = np.full((batch, streams), -1, np.int32)
        self._form, self._steps, self._keys = (codec.config.make(), sides), steps, row_keys(key, batch)
        self._variables = {"codec": codec.variables, "lm": layers_apart(params)}
        self._spelling, self._begun = [spelling.begun() for _ in range(batch)], np.zeros(batch, bool)
        self._state = opened(*self._form, steps, self._variables, batch)

    def push(self, samples: Float[np.ndarray, "B N"], active: Rows) -> Spoken:
        """The next `hop` samples of every active row: what it says and writes meanwhile.

        Raises `UserError` for other shapes and for samples that are not finite; the session goes on.
        """
        samples, active = np.asarray(samples, np.float32), np.asarray(active, bool)
        fits = samples.shape == (self.batch, self.hop) and active.shape == (self.batch,)
        require(fits, "push", samples.shape, f"{self.hop} samples for each of {self.batch} rows")
        broken = np.flatnonzero(active & ~np.isfinite(samples).all(-1))
        require(broken.size == 0, "samples of rows", broken.tolist(), "must be finite")
        self._begin(active & ~self._begun)
        heard = jnp.asarray(np.where(active[:, None], samples, 0.0))
        made = pushed(*self._form, self._steps, self._variables, self._state, heard, jnp.asarray(active), self._keys)
        (said, ids), self._state = made
        self.ids = np.asarray(ids)
        return Spoken(np.asarray(said), self._written(active))

    def reset(self, rows: Rows, keys: Key[Array, "B"] | None = None) -> None:
        """The given rows as new, before their next push. They keep their keys unless `keys` has others."""
        rows = np.asarray(rows, bool)
        require(rows.shape == (self.batch,), "rows", rows.shape, f"one flag for each of {self.batch} rows")
        if keys is not None:
            self._keys = jnp.where(jnp.asarray(rows), keys, self._keys)
        self._begun = self._begun & ~rows

    def warm_up(self) -> None:
        """Compile both programs, so that the first push is as quick as the others; every row is new afterwards."""
        self.push(np.zeros((self.batch, self.hop), np.float32), np.ones(self.batch, bool))
        self.reset(np.ones(self.batch, bool))

    def parts(self) -> dict[str, Callable[[], Any]]:
        """The parts of a frame, each as a program of its own on the rows as they are, for who asks where time goes.

        Nothing that they give is kept. "temporal step": the model up to what it gives for the next step; "text, codes":
        what is written of it, the depth transformer and drawing.
        """
        codec, sides = self._form
        state, steps, variables = self._state, self._steps, self._variables
        active, samples = jnp.ones(self.batch, bool), jnp.zeros((self.batch, self.hop))
        ids = jnp.maximum(jnp.asarray(self.ids), 0)
        step = jax.jit(partial(steps.model.apply, method="step"))
        read = step(variables["lm"], ids[:, None], state.lm.caches, active[:, None])[0][:, 0]
        draws = StepIn(jnp.full(ids.shape, -1, jnp.int32), active)
        coded, sound = jax.jit(partial(_coded, codec, sides)), jax.jit(partial(_sound, codec))
        return {
            "codec encode": partial(coded, variables, state.ears, samples, active),
            "temporal step": partial(step, variables["lm"], ids[:, None], state.lm.caches, active[:, None]),
            "text, codes": partial(jax.jit(steps.write), variables["lm"], read, draws, state.lm, self._keys),
            "codec decode": partial(sound, variables, state.voice, _own(ids, sides), active),
        }

    @property
    def behind(self) -> int:
        """Frames after one that is heard, until the first that can reply to it is whole."""
        return self._form[1].behind

    def _begin(self, rows: Rows) -> None:
        """The first step of new rows."""
        if not rows.any():
            return
        fresh = jnp.asarray(rows)
        self._state = begun(*self._form, self._steps, self._variables, self._state, fresh, self._keys)
        self._begun = self._begun | rows
        for row in np.flatnonzero(rows):
            self._spelling[row] = self._spelling[row].begun()

    def _written(self, active: Rows) -> tuple[str, ...]:
        """What each row's last id adds to its text."""
        ids = self.ids[:, 0]
        return tuple(self._spelling[row].add(int(ids[row])) if active[row] else "" for row in range(self.batch))


def programs() -> int:
    """How many programs of a frame this process has compiled: one for each form of session."""
    return pushed._cache_size()  # type: ignore[attr-defined]  # nothing public tells


def require_frames(codec: CodecTokenizer) -> None:
    """Raise `UserError` unless every frame of sound makes a frame of codes, and the reverse."""
    config = codec.config
    require(config.streams, "codec", type(config.encoder).__name__, "it is not causal")
    require(config.startup == 1, "codec", config.startup, "frames are held back where a row begins: one is in time")


def sides_of(scheme: Scheme, books: int) -> Sides:
    """The delays of a scheme over `books` own books and as many of the other side.

    Raises `UserError` for one in which a step does not hold an entry of every book.
    """
    frames = 64
    table = scheme.table(frames, 2 * books)
    step, entry = np.nonzero(table[..., 0] >= 0)
    late = step - table[step, entry, 0]
    delays = [np.unique(late[entry == book]) for book in range(2 * books)]
    constant = table.shape[1] == 2 * books and all(len(found) == 1 for found in delays)
    require(constant, "scheme", type(scheme).__name__, "a duplex model writes every book once a frame: a delay of each")
    found = [int(each[0]) for each in delays]
    return Sides(tuple(found[:books]), tuple(found[books:]))


def opened(codec: Any, sides: Sides, steps: Decoding, variables: Any, batch: int) -> DuplexState:
    """New rows, which have to begin."""
    apply = partial(codec.apply, variables["codec"], batch)
    return DuplexState(
        ears=apply(method="encode_state"),
        heard=jnp.full((batch, 1 + max(sides.other, default=0), len(sides.other)), EMPTY, jnp.int32),
        lm=steps.initial_state(batch, None, _nothing(sides)),
        said=jnp.full((batch, 1 + sides.behind, len(sides.own)), EMPTY, jnp.int32),
        voice=apply(method="decode_state"),
    )


@partial(jax.jit, static_argnums=(0, 1), donate_argnums=4)
def begun(
    codec: Any, sides: Sides, steps: Decoding, variables: Any, state: DuplexState, rows: Bool[Array, "B"], keys: Any
) -> DuplexState:
    """The given rows at their beginning, their first step written; the others as they were."""
    apply, first = partial(codec.apply, variables["codec"]), rows[:, None, None]
    lm = steps.reset(state.lm, rows, _nothing(sides))
    ids, lm = _advanced(steps, variables, sides, lm, rows, keys)
    after = DuplexState(
        ears=apply(state.ears, rows, method="encode_reset"),
        heard=jnp.where(first, EMPTY, state.heard),
        lm=lm,
        said=_next(jnp.where(first, EMPTY, state.said), _own(ids, sides), rows),
        voice=apply(state.voice, rows, method="decode_reset"),
    )
    chex.assert_trees_all_equal_shapes_and_dtypes(state, after)
    return after


@partial(jax.jit, static_argnums=(0, 1), donate_argnums=4)
def pushed(
    codec: Any,
    sides: Sides,
    steps: Decoding,
    variables: Any,
    state: DuplexState,
    samples: Float[Array, "B N"],
    active: Bool[Array, "B"],
    keys: Key[Array, "B"],
) -> tuple[tuple[Float[Array, "B N"], Int[Array, "B K1"]], DuplexState]:
    """One frame: samples `[B, hop]` in; samples out and the ids of the step that was written."""
    codes, ears = _coded(codec, sides, variables, state.ears, samples, active)
    heard = _next(state.heard, codes, active)
    ids, lm = _advanced(steps, variables, sides, _told(state.lm, heard, sides, active), active, keys)
    said = _next(state.said, _own(ids, sides), active)
    complete = active & (lm.written > sides.behind)
    frame = said[:, np.array(sides.own), np.arange(len(sides.own))]
    spoken, voice = _sound(codec, variables, state.voice, frame, complete)
    after = DuplexState(ears=ears, heard=heard, lm=lm, said=said, voice=voice)
    chex.assert_trees_all_equal_shapes_and_dtypes(state, after)  # or the next push would compile another program
    return (spoken, ids), after


def _coded(codec: Any, sides: Sides, variables: Any, ears: Any, samples: Any, active: Any) -> tuple[Any, Any]:
    """Codes [B, K] of what the other side says in this frame."""
    frames = Frames(samples[..., None], jnp.broadcast_to(active[:, None], samples.shape))
    codes, ears = codec.apply(variables["codec"], frames, ears, len(sides.other), method="encode_step")
    return codes.ids[:, 0].astype(jnp.int32), ears


def _sound(codec: Any, variables: Any, voice: Any, codes: Any, complete: Any) -> tuple[Any, Any]:
    """Samples [B, hop] of a complete frame [B, K]; silence of rows without one."""
    frame = Codes(jnp.maximum(codes, 0)[:, None], complete[:, None])
    made, voice = codec.apply(variables["codec"], frame, voice, method="decode_step")
    return jnp.where(complete[:, None], made.values[..., 0], 0.0), voice


def _told(lm: State, heard: Int[Array, "B D K"], sides: Sides, active: Bool[Array, "B"]) -> State:
    """The step written last, now that it is known what the other side said in it."""
    late = np.array(sides.other)
    codes = heard[:, heard.shape[1] - 1 - late, np.arange(len(late))]
    last = lm.last.at[:, 1 + len(sides.own) :].set(codes)
    return State(**{**vars(lm), "last": jnp.where(active[:, None], last, lm.last)})


def _advanced(steps: Decoding, variables: Any, sides: Sides, lm: State, active: Any, keys: Any) -> tuple[Any, State]:
    """The next step: text and own codes are drawn, where the delays have any; the other side's are not known yet."""
    rows, own = lm.last.shape[0], jnp.array(sides.own)
    free = jnp.where(lm.written[:, None] < own, EMPTY, -1)
    other = jnp.full((rows, len(sides.other)), EMPTY)
    told = jnp.concatenate([jnp.full((rows, 1), -1), free, other], axis=1).astype(jnp.int32)
    out, lm = steps.advance(variables["lm"], StepIn(told, active), lm, keys)
    return out.ids, lm


def _own(ids: Int[Array, "B K1"], sides: Sides) -> Int[Array, "B K"]:
    return ids[:, 1 : 1 + len(sides.own)]


def _nothing(sides: Sides) -> Int[Array, "K1"]:
    """What stands before the first step."""
    return jnp.full(1 + len(sides.own) + len(sides.other), EMPTY, jnp.int32)


def _next(window: Int[Array, "B D K"], entry: Int[Array, "B K"], rows: Bool[Array, "B"]) -> Int[Array, "B D K"]:
    """With one entry more at the end and without the oldest, of the given rows."""
    return jnp.where(rows[:, None, None], jnp.concatenate([window[:, 1:], entry[:, None]], axis=1), window)
