"""p(text | speech, text): speech encoders, an adapter and a text language model that reads what comes of it.

Words become vectors by the language model's own table, clips by encoders and adapter; an index table that is made with
the example says where which vector stands, so that no shape depends on data. With a `listener` in front of the language
model clips take no place in its rows: words listen to them (BESTOW).
"""

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Shaped

from slm_jax.adapters.prompt_scale import PromptScaleConfig
from slm_jax.core.config import Config
from slm_jax.core.errors import require
from slm_jax.core.types import Frames
from slm_jax.encoders.chunked import ChunkedEncoderConfig
from slm_jax.encoders.rolling import RollingEncoderConfig
from slm_jax.nn.pacing import PaceConfig, frames_read
from slm_jax.nn.positions import last_real
from slm_jax.sequence_models.decoder import Decoder
from slm_jax.sequence_models.decoder_config import DecoderConfig
from slm_jax.sequence_models.encoder_decoder import START, EncoderDecoderConfig
from slm_jax.sequence_models.listener import Listener, ListenerConfig

TEXT = -1
"""Entry of an index table where a word stands."""
Clips = Float[Array, "B C N"] | Int[Array, "B C N"]
"""Samples, or ids where that is what the encoders read."""


class SpeechAwareLMConfig(Config):
    """The parts, each by its config.

    `encoders`: one, or several that hear the same clip, whose frames `join` makes one; it says how many those are
    (`frames_of`). They read samples unless they say otherwise (`reads`, a dtype): what is said of samples below is then
    of ids. `adapter`: to the width of `lm`, a `DecoderConfig` or an `EncoderDecoderConfig`, whose encoder reads words
    and speech and whose decoder writes the answer. `prompt_scale`: how much LoRA counts is read off the instruction
    (`assemblies.prompt_scaled`; for a decoder as `lm`). `speech_id`: what stands for speech among the ids of files of
    others, which nothing here reads. `listener`: words listen to the clips of their row, one behind the other, instead
    of standing between their vectors; with a decoder as `lm`.
    """

    encoders: tuple[Any, ...]
    adapter: Any
    lm: Any
    join: Any = None
    speech_id: int | None = None
    prompt_scale: PromptScaleConfig | None = None
    listener: ListenerConfig | None = None

    def __post_init__(self) -> None:
        require(len(self.encoders) > 0, "encoders", self.encoders, "at least one")
        joined = (len(self.encoders) > 1) == (self.join is not None)
        require(joined, "join", self.join, f"goes with several encoders; there are {len(self.encoders)}")
        kinds = sorted({dtype_read(encoder) for encoder in self.encoders})
        require(len(kinds) == 1, "encoders", kinds, "all read the same: samples, or ids")
        width = self.adapter.width
        require(width == self.lm.width, "adapter.width", width, f"the language model's {self.lm.width}")
        if self.prompt_scale is not None:
            width, decodes = self.prompt_scale.width, isinstance(self.lm, DecoderConfig)
            require(width == self.lm.width, "prompt_scale.width", width, f"the language model's {self.lm.width}")
            require(decodes, "prompt_scale", type(self.lm).__name__, "goes with a decoder as language model")
        if self.listener is not None:
            width = self.listener.width
            require(width == self.lm.width, "listener.width", width, f"the language model's {self.lm.width}")
            require(not self.answers_apart, "listener", "a listener", "stands in front of a decoder")

    def make(self) -> "SpeechAwareLM":
        """The module."""
        return SpeechAwareLM(self)

    def frames_heard(self, samples: int) -> int:
        """Frames that the adapter is given of a clip of so many samples."""
        counts = self.frame_counts(samples)
        return counts[0] if self.join is None else int(self.join.frames_of(*counts))

    def frame_counts(self, samples: int) -> tuple[int, ...]:
        """Frames that each encoder makes of a clip of so many samples."""
        return tuple(int(encoder.frame_count(samples)) for encoder in self.encoders)

    def frames_out(self, samples: int) -> int:
        """Vectors that a clip of so many samples takes in a row."""
        return int(self.adapter.frames_out(self.frames_heard(samples)))

    @property
    def vector_samples(self) -> int:
        """Samples of a clip that one vector stands for, where each stands for as many."""
        many = 960 * self.encoder.hop
        return round(many / self.frames_out(many))

    @property
    def reads(self) -> str:
        """The dtype of clips: float32 of samples, int32 of ids."""
        return dtype_read(self.encoders[0])

    @property
    def window(self) -> int | None:
        """Samples of the longest clip that all encoders hear at once; None: any length."""
        windows = [window_of(encoder) for encoder in self.encoders]
        return min((window for window in windows if window is not None), default=None)

    @property
    def encoder(self) -> Any:
        """The first encoder."""
        return self.encoders[0]

    @property
    def encoder_1(self) -> Any:
        """The second encoder; None where there is one."""
        return self.encoders[1] if len(self.encoders) > 1 else None

    @property
    def vocabulary(self) -> int:
        """Words of the language model."""
        return self.lm.vocabulary

    @property
    def tied_head(self) -> bool:
        """Whether the head is the table of embeddings."""
        return self.lm.tied_head

    @property
    def width(self) -> int:
        """Channels of what the language model reads."""
        return self.lm.width

    @property
    def reader(self) -> DecoderConfig:
        """The stack that reads words and speech."""
        return self.lm.encoder if isinstance(self.lm, EncoderDecoderConfig) else self.lm

    @property
    def writer(self) -> DecoderConfig:
        """The stack that writes the answer."""
        return self.lm.decoder if isinstance(self.lm, EncoderDecoderConfig) else self.lm

    @property
    def answers_apart(self) -> bool:
        """Is the answer a row of its own? Else it stands behind what it answers."""
        return isinstance(self.lm, EncoderDecoderConfig)

    @property
    def max_positions(self) -> int | None:
        """Entries that a row which is written may have."""
        return self.writer.max_positions


class SpeechAwareLM(nn.Module):
    """Sub-modules `encoder` (`encoder_1` ... of several), `join`, `adapter`, `listener`, `lm`, `prompt_scale`.

    It is decoded as a language model is: `extend`, `step` and `head` are those of `lm`, prompts are vectors. Where `lm`
    is an encoder-decoder they are those of its decoder, prompts are `START`, and the context is what `listened` gives.

    With a listener prompts are vectors and the context is `memory`, of which each entry sees as much as is read by then
    at the pace of its row: in training each draws one of `paces`, else it is the first. None reads all of a clip first.
    """

    config: SpeechAwareLMConfig
    paces: tuple[PaceConfig | None, ...] = (None,)

    def setup(self) -> None:
        for place, encoder in enumerate(self.config.encoders):
            setattr(self, encoder_name(place), encoder.make())
        if self.config.join is not None:
            self.join = self.config.join.make()
        self.adapter = self.config.adapter.make()
        if self.config.listener is not None:
            self.listener = self.config.listener.make()
        self.lm: Any = self.config.lm.make()
        if self.config.prompt_scale is not None:
            self.prompt_scale = self.config.prompt_scale.make()

    def __call__(
        self,
        samples: Clips,
        sample_mask: Bool[Array, "B C N"],
        ids: Int[Array, "B S"],
        speech_at: Int[Array, "B S"],
        mask: Bool[Array, "B S"],
        answer: Int[Array, "B A"] | None = None,
        *,
        deterministic: bool = True,
    ) -> Float[Array, "B _ V"]:
        """Float32 logits after each entry of rows with up to C clips (see `splice`); of an `answer` see `run`."""
        speech = self.speech(self.heard(samples, sample_mask, deterministic=deterministic), deterministic=deterministic)
        read = self.vectors(ids, speech, speech_at, mask)
        if self.is_initializing() and self.config.prompt_scale is not None:
            self.prompt_factors(ids, mask)
        return self.lm.head(self.run(read, answer, self.memory(speech, len(ids)), deterministic=deterministic))

    def prompt_factors(self, ids: Int[Array, "B P"], mask: Bool[Array, "B P"]) -> Float[Array, "B D"]:
        """How much LoRA counts for each output, by what the language model's last layer makes of an instruction."""
        words = self.lm.run_states(self.lm.embed(ids), mask=mask)[-1]
        return self.prompt_scale(Frames(words, mask))

    def heard(self, samples: Clips, sample_mask: Bool[Array, "B C N"], *, deterministic: bool = True) -> Frames:
        """What the adapter is given of the clips of B rows: Frames of B C rows."""
        return self.joined(self.encoded(samples, sample_mask, deterministic=deterministic))

    def encoded(
        self, samples: Clips, sample_mask: Bool[Array, "B C N"], *, deterministic: bool = True
    ) -> tuple[Frames, ...]:
        """What each encoder makes of the clips of B rows: Frames of B C rows."""
        flat, real = samples.reshape(-1, samples.shape[-1]), sample_mask.reshape(-1, sample_mask.shape[-1])
        encoders = [getattr(self, encoder_name(place)) for place in range(len(self.config.encoders))]
        return tuple(encoder(flat, real, deterministic=deterministic).frames for encoder in encoders)

    def joined(self, streams: Sequence[Frames]) -> Frames:
        """The frames of all encoders as one stream."""
        return streams[0] if self.config.join is None else self.join(*streams)

    def speech(self, heard: Frames, *, deterministic: bool = True) -> Frames:
        """What the language model reads of it."""
        return self.adapter(heard, deterministic=deterministic)

    def memory(self, speech: Frames, rows: int) -> Frames | None:
        """What the words of each of `rows` rows listen to: their clips, one behind the other. None without a listener.

        Padding stands behind each clip and is not seen.
        """
        if self.config.listener is None:
            return None
        return Frames(speech.values.reshape(rows, -1, speech.values.shape[-1]), speech.mask.reshape(rows, -1))

    def run(
        self,
        read: Frames,
        answer: Int[Array, "B A"] | None = None,
        memory: Frames | None = None,
        written: Int[Array, "B S"] | None = None,
        *,
        deterministic: bool = True,
    ) -> Float[Array, "B _ D"]:
        """What the head reads behind each entry of `vectors`.

        Of an encoder-decoder: in front of each id of the right-padded `answer` (None: of the first). No other language
        model has an answer apart. With a listener: `memory`, and how many ids are `written` up to each entry (None: all
        of the memory is seen).
        """
        if not self.config.answers_apart:
            require(answer is None, "answer", answer, "stands in the row that this language model reads")
            values = read.values
            if memory is not None:
                seen = None if written is None else self._read(written, deterministic)
                values = self.listener(values, read.mask, memory, seen, deterministic=deterministic)
            return self.lm.run(values, mask=read.mask, deterministic=deterministic)
        answer = jnp.full((len(read.mask), 1), START) if answer is None else answer
        before = jnp.pad(answer[:, :-1], ((0, 0), (1, 0)), constant_values=START)
        return self.lm.hidden(read.values, before, read.mask, deterministic=deterministic)

    def _read(self, written: Int[Array, "B S"], deterministic: bool) -> Int[Array, "B S"] | None:
        """Frames that entries see behind so many written ids; None: all."""
        paces = self.paces[:1] if deterministic else self.paces
        if paces == (None,):
            return None
        drawn = jnp.zeros(len(written), jnp.int32)
        if len(paces) > 1:
            drawn = jax.random.randint(self.make_rng("dropout"), drawn.shape, 0, len(paces))
        return frames_read(written, paces, drawn)

    def listened(self, read: Frames) -> Frames:
        """What the decoder of an encoder-decoder listens to, from `vectors`."""
        return self.lm.encode(read.values, read.mask)

    def vectors(
        self, ids: Int[Array, "B S"], speech: Frames, speech_at: Int[Array, "B S"], mask: Bool[Array, "B S"]
    ) -> Frames:
        """What the language model reads, words and speech; no entry is real whose frame of speech is not.

        With a listener words alone.
        """
        if self.config.listener is not None:
            return Frames(jnp.where(mask[..., None], self.lm.embed(ids), 0), mask)
        there = mask & splice(mask[..., None], speech.mask[..., None], speech_at)[..., 0]
        values = splice(self.lm.embed(ids), speech.values, speech_at)
        return Frames(jnp.where(there[..., None], values, 0), there)

    def embed(self, ids: Int[Array, "B S"]) -> Float[Array, "B S D"]:
        """Words as vectors."""
        return self.lm.embed(ids)

    def head(self, features: Float[Array, "*B D"]) -> Float[Array, "*B V"]:
        """Float32 logits from what `hidden` returns."""
        return self.lm.head(features)

    def head_matrix(self) -> Float[Array, "D V"]:
        """The matrix of `head`."""
        return self.lm.head_matrix()

    @nn.nowrap
    def initial_state(self, batch: int, capacity: int | None, dtype: Any = None) -> Any:
        """Empty caches of the language model, of a listener before them; no parameters needed."""
        own = Decoder(self.config.writer, parent=None).initial_state(batch, capacity, dtype)
        listener = self.config.listener
        if listener is None:
            return own
        assert capacity is not None  # for the type checker: prompts that are vectors have a capacity
        return (*Listener(listener, parent=None).initial_state(batch, capacity, dtype, self.paces[0]), *own)

    def prefill(
        self,
        ids: Int[Array, "B T"],
        state: Any,
        mask: Bool[Array, "B T"] | None = None,
        context: Frames | None = None,
    ) -> Any:
        """`Decoder.prefill` of the language model."""
        if self.config.listener is None:
            return self._writer.prefill(ids, state, mask, context)
        features, state = self.extend(self.embed(ids), state, mask, context)
        return self.head(last_real(features, mask)), state

    def step(self, ids: Int[Array, "B T"], state: Any, mask: Bool[Array, "B T"] | None = None) -> Any:
        """`Decoder.step` of the language model."""
        if self.config.listener is None:
            return self._writer.step(ids, state, mask)
        features, state = self.extend(self.embed(ids), state, mask)
        return self.head(features), state

    def extend(
        self,
        x: Float[Array, "B T D"],
        state: Any,
        mask: Bool[Array, "B T"] | None = None,
        context: Frames | None = None,
    ) -> Any:
        """`Decoder.extend` of the language model; through a listener, what words listen to is the `context`."""
        if self.config.listener is None:
            return self._writer.extend(x, state, mask, context)
        layers = self.config.listener.layers
        x, heard = self.listener.extend(x, state[:layers], mask, context)
        features, own = self.lm.extend(x, state[layers:], mask)
        return features, (*heard, *own)

    def stream(self, samples: Float[Array, "B N"], mask: Bool[Array, "B N"], state: Any) -> tuple[Frames, Any]:
        """What the (only) encoder makes of the next samples, and its state; it has to hear chunk by chunk."""
        return self.encoder.step(samples, mask, state)

    def hear(self, context: Frames, state: Any) -> Any:
        """The state with another context in the place of the one that its listener keeps."""
        listener = self.config.listener
        require(listener is not None, "listener", None, "words that stand between vectors of speech hear nothing new")
        assert listener is not None  # for the type checker
        nothing = jnp.zeros((len(context.mask), 0, self.config.width), context.values.dtype)
        return (*self.listener.extend(nothing, state[: listener.layers], None, context)[1], *state[listener.layers :])

    def reset(self, state: Any, rows: Bool[Array, "B"]) -> Any:
        """With the given rows emptied."""
        return tuple(cache.reset(rows) for cache in state)

    @property
    def _writer(self) -> Decoder:
        return self.lm.decoder if self.config.answers_apart else self.lm


def dtype_read(encoder: Any) -> str:
    """The dtype of what an encoder of this config reads."""
    return getattr(encoder, "reads", "float32")


def encoder_name(place: int) -> str:
    """The name of an encoder among the sub-modules, and so the path of its weights."""
    return f"encoder_{place}" if place else "encoder"


def features_name(place: int) -> str:
    """The name in a batch of what an encoder made of the clips, `[B, C, T, E]`."""
    return f"features_{place}" if place else "features"


def feature_mask_name(place: int) -> str:
    """The name in a batch of which of these frames are real, `[B, C, T]`."""
    return f"feature_mask_{place}" if place else "feature_mask"


def window_of(encoder: Any) -> int | None:
    """Samples that an encoder (its config) hears at once, at most; None: any number."""
    if isinstance(encoder, ChunkedEncoderConfig | RollingEncoderConfig):
        return None
    inner, own = getattr(encoder, "encoder", None), getattr(encoder, "window", None)
    windows = [own, None if inner is None else window_of(inner)]
    return min((window for window in windows if window is not None), default=None)


def splice(
    text: Shaped[Array, "B S D"], speech: Shaped[Array, "M F D"], speech_at: Int[Array, "B S"]
) -> Shaped[Array, "B S D"]:
    """Rows of words and speech: `speech_at` c F + f puts vector f of the row's clip c there, `TEXT` leaves the word.

    M: clips of all rows, as many for each.
    """
    clips: jax.Array = speech.reshape(text.shape[0], -1, text.shape[-1])
    taken = jnp.take_along_axis(clips, jnp.maximum(speech_at, 0)[..., None], axis=1)
    return jnp.where((speech_at != TEXT)[..., None], taken.astype(text.dtype), text)
