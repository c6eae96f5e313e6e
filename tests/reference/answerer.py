"""Speech and words in, words out: a frozen encoder, a linear adapter, a frozen text LM with LoRA.

What is read becomes vectors of the LM's width, one after the other: bytes by its own table, speech by encoder and
adapter. Where which of them stands is an index table made with the example, so that no shape depends on data.
"""

import dataclasses
from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from slm_jax.adapters.linear import LinearAdapter
from slm_jax.core.contracts import Batch, Loss, Term, Variables
from slm_jax.core.messages import Conversation, Speech, Turn
from slm_jax.core.types import Frames
from slm_jax.data.passes import float_samples
from slm_jax.encoders.ssl import SSLEncoder
from slm_jax.objectives.cross_entropy import Terms, token_sums
from slm_jax.text.tokenizers import ByteTokenizer
from slm_jax.text.vocabulary import Vocabulary

VOCABULARY = Vocabulary(ranges=(("text", ByteTokenizer.size),))


def text_ids(text: str) -> list[int]:
    """Bytes as ids of the language model."""
    return VOCABULARY.encode_range("text", np.array(ByteTokenizer().encode(text), np.int32)).tolist()


@dataclasses.dataclass(frozen=True)
class Answerer:
    """The parts; `variables` hold `params/adapter` and `lora`, `frozen` holds `encoder` and `lm`."""

    encoder: SSLEncoder
    adapter: LinearAdapter
    lm: Any

    def frames(self, variables: Variables, frozen: Any, samples: jax.Array, mask: jax.Array) -> Frames:
        """Speech [B, N] as vectors of the LM's width."""
        heard = self.encoder.apply({"params": frozen["encoder"]}, samples, mask)
        heard = Frames(jax.lax.stop_gradient(heard.values), heard.mask)
        return self.adapter.apply({"params": variables["params"]["adapter"]}, heard)

    def embed(self, frozen: Any, ids: jax.Array) -> jax.Array:
        """Bytes [B, S] as vectors."""
        return self.lm.model.apply({"params": frozen["lm"]}, ids, method="embed")

    def language_model(self, variables: Variables, frozen: Any) -> dict[str, Any]:
        """Variables of `lm`."""
        return {"params": frozen["lm"], "lora": variables["lora"]}

    def frames_out(self, samples: int) -> int:
        """Vectors that so many samples become."""
        return self.adapter.config.frames_out(int(self.encoder.config.frame_count(samples)))


@dataclasses.dataclass(frozen=True)
class AnswerExample:
    """An item whose `messages` end with an answer, as rows of `length` entries and a clip of `clip` samples."""

    answerer: Answerer
    clip: int
    length: int

    def __call__(self, item: dict[str, Any], rng: np.random.Generator) -> dict[str, np.ndarray]:
        """`samples`, `sample_mask` [N]; `ids`, `speech_at`, `mask`, `target_weight` [S]; `said`, `said_mask` [S].

        `speech_at`: the vector of the speech that stands there, -1 where `ids` counts. `said`: the words of the speech.
        """
        samples = float_samples(item["samples"])
        samples = samples if samples.ndim == 1 else samples[:, 0]
        heard, asked, answer = self._turns(item["messages"])
        frames = self.answerer.frames_out(len(samples))
        before = [VOCABULARY.bos_id, *[0] * frames, *text_ids(asked + "\n")]
        target = [*text_ids(answer), VOCABULARY.eos_id]
        ids, said = before + target, text_ids(heard)[: self.length]
        speech_at = np.full(self.length, -1, np.int32)
        speech_at[1 : 1 + frames] = np.arange(frames)
        weight = np.zeros(self.length, np.float32)
        weight[len(before) : len(ids)] = 1.0
        return {
            "samples": np.pad(samples, (0, self.clip - len(samples))),
            "sample_mask": np.arange(self.clip) < len(samples),
            "ids": self._row(ids),
            "speech_at": speech_at,
            "mask": np.arange(self.length) < len(ids),
            "target_weight": weight,
            "said": self._row(said),
            "said_mask": np.arange(self.length) < len(said),
        }

    def fits(self, item: dict[str, Any]) -> bool:
        """Is there room for all of it? Nothing is ever cut."""
        _, asked, answer = self._turns(item["messages"])
        entries = self.answerer.frames_out(len(item["samples"])) + len(text_ids(asked + answer)) + 3
        return len(item["samples"]) <= self.clip and entries <= self.length

    def _turns(self, turns: Sequence[Turn]) -> tuple[str, str, str]:
        heard = next(turn.text or "" for turn in turns if turn.is_heard)
        asked = " ".join(turn.text or "" for turn in turns if turn.role == "user" and not turn.is_heard)
        return heard, asked, turns[-1].text or ""

    def _row(self, ids: list[int]) -> np.ndarray:
        return np.pad(np.array(ids, np.int32), (0, self.length - len(ids)))


class AnswerObjective:
    """Two terms: the answer's bytes, and how far the mean of the speech's vectors is from that of its words.

    The second is explicit alignment in its smallest form (1 - cosine); it counts rows, the first counts bytes.
    """

    def __init__(self, answerer: Answerer, alignment: float) -> None:
        self.answerer, self.alignment = answerer, alignment

    def __call__(self, variables: Variables, batch: Batch, rng: jax.Array | None, frozen: Any = None) -> Loss:
        parts, own = frozen["frozen"], self.answerer
        speech = own.frames(variables, parts, batch["samples"], batch["sample_mask"])
        x = spliced(own.embed(parts, batch["ids"]), speech.values, batch["speech_at"])
        lm = own.language_model(variables, parts)
        rngs = {} if rng is None else {"rngs": {"dropout": rng}}
        features = own.lm.apply(lm, x, mask=batch["mask"], deterministic=rng is None, method="run", **rngs)
        logits = own.lm.apply(lm, features[:, :-1], method="head")
        weights = batch["target_weight"][:, 1:]
        sums = token_sums(logits, batch["ids"][:, 1:], weights, Terms())
        distance = 1.0 - cosine(
            mean(speech.values, speech.mask), mean(own.embed(parts, batch["said"]), batch["said_mask"])
        )
        rows = jnp.float32(len(distance))
        terms = {
            "answer": Term(sums.loss, weights.sum()),
            "alignment": Term(distance.sum(), rows, self.alignment),
        }
        return Loss(terms, {"answer_accuracy": (sums.correct, weights.sum())})


def spliced(text: jax.Array, speech: jax.Array, speech_at: jax.Array) -> jax.Array:
    """Vectors [B, S, D]: those of the text, and of the speech where `speech_at` says so."""
    taken = jnp.take_along_axis(speech, jnp.maximum(speech_at, 0)[..., None], axis=1)
    return jnp.where((speech_at >= 0)[..., None], taken.astype(text.dtype), text)


def mean(values: jax.Array, mask: jax.Array) -> jax.Array:
    """Over the real entries of each row, [B, D]."""
    return jnp.where(mask[..., None], values, 0).sum(1) / jnp.maximum(mask.sum(1), 1)[:, None]


def cosine(a: jax.Array, b: jax.Array) -> jax.Array:
    """Of each row."""
    norms = jnp.linalg.norm(a, axis=-1) * jnp.linalg.norm(b, axis=-1)
    return (a * b).sum(-1) / jnp.maximum(norms, 1e-6)


@partial(jax.jit, static_argnums=0)
def speech_vectors(answerer: Answerer, variables: Variables, frozen: Any, samples: Any, mask: Any) -> Frames:
    """`Answerer.frames`, compiled."""
    return answerer.frames(variables, frozen, samples, mask)


@partial(jax.jit, static_argnums=0)
def text_vectors(answerer: Answerer, frozen: Any, ids: Any) -> jax.Array:
    """`Answerer.embed`, compiled."""
    return answerer.embed(frozen, ids)


def prompt_parts(conversation: Conversation) -> list[list[int] | Speech]:
    """What is read, in order: bytes, and clips between them; the words of the question end with a new line."""
    found: list[list[int] | Speech] = [[VOCABULARY.bos_id]]
    for message in conversation:
        found += [part if isinstance(part, Speech) else text_ids(part.text) for part in message.parts]
    return [*found, text_ids("\n")]
