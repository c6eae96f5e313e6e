"""A spoken language model over the codes of a codec in any order: waveforms in, waveforms out."""

import dataclasses
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import field
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key

from slm_jax.assemblies.codec_tokenizer import CodecTokenizer
from slm_jax.core.config import Config
from slm_jax.core.contracts import Reply
from slm_jax.core.errors import require
from slm_jax.core.messages import Conversation, Message, Speech
from slm_jax.core.types import Codes
from slm_jax.data.examples.code_rows import CodeRowsConfig
from slm_jax.evaluation.codes import code_log_probs
from slm_jax.generation.by_scheme import continue_codes, filled_in
from slm_jax.generation.sampling import SamplingConfig
from slm_jax.schemes.table import Scheme
from slm_jax.serving.hearing import only_clips, require_readable

Ids = Int[np.ndarray, "_ K"]
"""Codes of one recording."""


class CodeDecoding(Config):
    """How a language model of codes goes on.

    `seconds`: of new sound. `with_prompt`: the reply begins with the clip, as its codes have it.
    """

    seconds: float = 3.0
    temperature: float = 0.8
    top_k: int | None = None
    top_p: float | None = None
    with_prompt: bool = True

    def __post_init__(self) -> None:
        require(self.seconds > 0, "seconds", self.seconds, "must be positive")

    @property
    def sampling(self) -> SamplingConfig:
        """How a code is drawn."""
        return SamplingConfig(temperature=self.temperature, top_k=self.top_k, top_p=self.top_p, max_new=1)


@dataclasses.dataclass(frozen=True, kw_only=True)
class CodeSpeechLM:
    """Codec, model and scheme of one run.

    `decoding` and `prompt_s` (seconds of speech to go on from): how it is used unless somebody says otherwise.
    `origin`: the stage of the run that wrote the codes, whose tables judges read.
    """

    codec: CodecTokenizer
    lm: Any
    lm_params: Any
    scheme: Scheme
    decoding: CodeDecoding = field(default_factory=CodeDecoding)
    prompt_s: float | int = 3.0
    origin: str = "codes"

    reads: ClassVar[frozenset[str]] = frozenset({"speech"})
    writes: ClassVar[frozenset[str]] = frozenset({"speech"})

    @property
    def rate_hz(self) -> int:
        """The codec's rate."""
        return self.codec.config.rate_hz

    @property
    def rows(self) -> CodeRowsConfig:
        """How codes become the steps that the model reads."""
        return CodeRowsConfig(columns=self.codec.spec.columns, scheme=self.scheme, frames=1)

    def respond(
        self, conversations: Sequence[Conversation], decoding: CodeDecoding | None, key: jax.Array
    ) -> list[Reply]:
        """Goes on with the only clip of each conversation.

        A reply is one message of speech; its trace has `prompt_frames` and `codes` `[T, K]`. `key`: one, split over the
        conversations, or one for each. Raises `UserError` for what cannot be heard.
        """
        how = self.decoding if decoding is None else decoding
        prompts = codes_of(self.codec, conversations, self.reads)
        made = self.continued(prompts, how, key)
        return [self._reply(codes, len(prompt), how) for codes, prompt in zip(made, prompts, strict=True)]

    def log_prob(self, conversations: Sequence[Conversation]) -> list[Float[np.ndarray, "_"]]:
        """ln p of every code of each conversation's clip, in the order in which they are written."""
        return self.log_probs(codes_of(self.codec, conversations, self.reads))

    def log_probs(self, clips: Sequence[Ids]) -> list[Float[np.ndarray, "_"]]:
        """The same of codes."""
        sequences = [self.rows.sequence(codes) for codes in clips]
        scores = code_log_probs(self.lm, self.lm_params, sequences, max(map(len, sequences), default=1))
        return [score[sequence[1:] >= 0] for score, sequence in zip(scores, sequences, strict=True)]

    def continued(self, prompts: Sequence[Ids], how: CodeDecoding, key: Key[Array, ""] | Key[Array, "B"]) -> list[Ids]:
        """The codes of each prompt and of what follows it.

        Prompts of one length go together: where all coarse codes come first, the place of a code depends on how long
        the whole is, so that a row beside a longer one would not be what it is alone.
        """
        keys = jax.random.split(key, len(prompts)) if key.ndim == 0 else key
        found: dict[int, Ids] = {}
        for length, chosen in by_length(prompts).items():
            ids = jnp.asarray(np.stack([prompts[place] for place in chosen]), jnp.int32)
            frames = length + max(1, round(how.seconds * self.codec.spec.frames_per_second))
            told = Codes(ids, jnp.ones(ids.shape[:2], bool))
            rows = keys[np.asarray(chosen)]
            made = continue_codes(self.lm, self.lm_params, told, frames, self.scheme, rows, how.sampling)
            found |= dict(zip(chosen, np.asarray(made.ids), strict=True))
        return [found[place] for place in range(len(prompts))]

    def _reply(self, codes: Ids, known: int, how: CodeDecoding) -> Reply:
        said = self.codec.decode(codes)
        if not how.with_prompt:
            said = said[known * self.codec.config.hop :]
        message = Message("assistant", (Speech(said, self.rate_hz),))
        return Reply((message,), {"prompt_frames": known, "codes": codes})


def codes_of(codec: CodecTokenizer, conversations: Sequence[Conversation], reads: frozenset[str]) -> list[Ids]:
    """Codes of the only clip of each conversation. Raises `UserError` for what cannot be heard."""
    require_readable(conversations, reads)
    clips = only_clips(conversations, codec.config.rate_hz)
    return codec.encode_rows(clips) if clips else []


def by_length(prompts: Sequence[Ids]) -> dict[int, list[int]]:
    """length -> places of the prompts that are so long."""
    places = defaultdict(list)
    for place, prompt in enumerate(prompts):
        places[len(prompt)].append(place)
    return dict(places)


def rows_filled_in(
    lm: Any,
    params: Any,
    told: Sequence[Int[np.ndarray, "_ K1"]],
    keys: Key[Array, ""] | Key[Array, "B"],
    sampling: SamplingConfig,
) -> list[Int[np.ndarray, "_ K1"]]:
    """`generation.by_scheme.filled_in` of rows of any lengths; those of one length go together.

    `keys`: one, split over the rows, or one for each.
    """
    keys = jax.random.split(keys, len(told)) if keys.ndim == 0 else keys
    found: dict[int, Int[np.ndarray, "_ K1"]] = {}
    for places in by_length(told).values():
        drawn = filled_in(lm, params, np.stack([told[place] for place in places]), keys[np.asarray(places)], sampling)
        found |= dict(zip(places, drawn, strict=True))
    return [found[place] for place in range(len(told))]
