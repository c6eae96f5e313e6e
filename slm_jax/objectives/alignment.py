"""Alignment of a speech-aware LM beside what it answers: explicit, by vectors; implicit, by distributions of words."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from slm_jax.core.config import Config
from slm_jax.core.contracts import Batch, Loss, Term, Variables
from slm_jax.core.errors import require
from slm_jax.core.trees import together
from slm_jax.core.types import Frames
from slm_jax.nn.lora import COLLECTION, LoRAModel
from slm_jax.objectives.answers import (
    CHUNK,
    count_of,
    following,
    packed,
    read_beside,
    speech_of,
    trains_encoders,
)
from slm_jax.objectives.next_token import LARGE_VOCABULARY, NextTokenConfig, summed
from slm_jax.objectives.token_distance import TokenDistanceConfig, token_distances


class SameWordsConfig(Config):
    """What follows speech is to follow as it does in writing: KL(p(. | text) || p(. | speech)), `weight` times.

    At every word of the answer, over the whole vocabulary (BLSP-KD's form of distillation). Both distributions are
    softened by `temperature`, and the term is multiplied by its square, as Hinton et al. (2015) do. LoRA has no part in
    what is taught: the text is read by the language model as it was.
    """

    weight: float = 1.0
    temperature: float = 1.0

    def __post_init__(self) -> None:
        require(self.weight > 0, "weight", self.weight, "must be above 0")
        require(self.temperature > 0, "temperature", self.temperature, "must be above 0")


@dataclasses.dataclass(frozen=True)
class Alignment:
    """`answers` times the nats per word of the answer, and beside it what `near` and `alike` say.

    The batch is that of `objectives.answers.Answers`. With `near` it holds the tokens of what is said, `token_ids`,
    `token_mask` `[B, L]` and, for segments in time, `token_spans`; each row has one clip. With `alike` it holds the row
    in writing, `text_ids`, `text_mask`, `text_weight` `[B, W]` (of an encoder-decoder, whose answer is apart, the
    first two). Terms `answer`, `near`, `alike`; metrics `nll`, `accuracy`, `nearest` (tokens whose own row is the
    nearest of the batch), `missing` (those without a vector).
    """

    model: Any
    config: NextTokenConfig
    answers: float = 1.0
    near: TokenDistanceConfig | None = None
    alike: SameWordsConfig | None = None

    def __call__(self, variables: Variables, batch: Batch, rng: jax.Array | None, frozen: Any = None) -> Loss:
        whole = together(variables, frozen)
        batch = {name: jnp.asarray(value) for name, value in batch.items()}
        how = {"deterministic": rng is None, "hears_alike": rng is None or not trains_encoders(variables)}
        rngs = None if rng is None else {"dropout": rng}
        speech, *rows = self.model.apply(whole, batch, method=_read, rngs=rngs, **how)
        features, targets, counted = packed(*rows)
        parts = [self._answered(whole, features, targets, counted, batch)]
        if self.near is not None:
            parts.append(self._near(whole, speech, batch, self.near))
        if self.alike is not None:
            parts.append(self._alike(whole, features, counted, batch, self.alike))
        terms = {name: term for part in parts for name, term in part.terms.items()}
        return Loss(terms, {name: pair for part in parts for name, pair in part.metrics.items()})

    def _answered(self, whole: Variables, features: Any, targets: Any, counted: Any, batch: Batch) -> Loss:
        large = self.config.chunk == "auto" and self.model.config.vocabulary >= LARGE_VOCABULARY
        config = self.config.replace(chunk=CHUNK) if large else self.config
        sums, count = summed(self.model, config, whole, features, targets, counted), count_of(batch)
        metrics = {"nll": (sums.nll, count), "accuracy": (sums.correct, count)}
        return Loss({"answer": Term(sums.loss, count, self.answers)}, metrics)

    def _near(self, whole: Variables, speech: Frames, batch: Batch, near: TokenDistanceConfig) -> Loss:
        ids, told = batch["token_ids"], batch["token_mask"]
        rule = f"one for each of {len(ids)} rows: a row whose tokens are known has one clip"
        require(len(speech.mask) == len(ids), "clips of a batch", len(speech.mask), rule)
        found = near.segmenter.segment(speech, batch, self.model.config.adapter)  # type: ignore[attr-defined]
        sums = token_distances(near, found, self.model.apply(whole, ids, method="embed"), ids, told)
        metrics = {"nearest": (sums.nearest, sums.count), "missing": (sums.missing, told.sum().astype(jnp.float32))}
        return Loss({"near": Term(sums.total, sums.count, near.weight)}, metrics)

    def _alike(self, whole: Variables, features: Any, counted: Any, batch: Batch, alike: SameWordsConfig) -> Loss:
        plain = self.model.model if isinstance(self.model, LoRAModel) else self.model
        base = {name: tree for name, tree in whole.items() if name != COLLECTION}
        written = jax.lax.stop_gradient(plain.apply(base, batch, method=_written))
        taught, _, weights = packed(*written)
        length = min(features.shape[1], taught.shape[1])
        real = jnp.where(weights[:, :length] > 0, counted[:, :length], 0.0)

        def both(mine: Float[Array, "B c D"], theirs: Float[Array, "B c D"]) -> Float[Array, "B c"]:
            logits = self.model.apply(whole, mine, method="head"), plain.apply(base, theirs, method="head")
            return divergence(logits[0], jax.lax.stop_gradient(logits[1]), alike.temperature)

        total = _chunked(both, features[:, :length], taught[:, :length], real)
        return Loss({"alike": Term(total, count_of(batch), alike.weight)}, {})


def divergence(
    logits: Float[Array, "*B V"], teacher: Float[Array, "*B V"], temperature: float = 1.0
) -> Float[Array, "*B"]:
    """KL(teacher || ours) in nats of two distributions, softened, times the square of the temperature."""
    mine, theirs = (jax.nn.log_softmax(x.astype(jnp.float32) / temperature, axis=-1) for x in (logits, teacher))
    return temperature**2 * (jnp.exp(theirs) * (theirs - mine)).sum(-1)


def _chunked(both: Any, mine: Any, theirs: Any, real: Any) -> Float[Array, ""]:
    """The weighed sum of `both` over all entries, of which `CHUNK` of each row have logits at once."""
    missing = -mine.shape[1] % min(CHUNK, mine.shape[1])
    size = min(CHUNK, mine.shape[1])

    def cut(x: jax.Array) -> jax.Array:
        x = jnp.pad(x, ((0, 0), (0, missing)) + ((0, 0),) * (x.ndim - 2))
        return jnp.moveaxis(x.reshape(len(x), -1, size, *x.shape[2:]), 1, 0)

    @jax.checkpoint
    def part(total: jax.Array, chunk: Any) -> tuple[jax.Array, None]:
        values, weight = both(*chunk[:2]), chunk[2]
        return total + jnp.where(weight > 0, values * weight, 0.0).sum(), None

    return jax.lax.scan(part, jnp.zeros((), jnp.float32), tuple(map(cut, (mine, theirs, real))))[0]


def _read(
    model: Any, batch: Batch, *, deterministic: bool, hears_alike: bool
) -> tuple[Frames, Float[Array, "B S D"], Int[Array, "B S"], Float[Array, "B S"]]:
    """What is read of the clips, and what `objectives.answers.read_rows` gives."""
    speech = speech_of(model, batch, deterministic=deterministic, hears_alike=hears_alike)
    return speech, *read_beside(model, batch, speech, deterministic=deterministic)


def _written(model: Any, batch: Batch) -> tuple[Float[Array, "B W D"], Int[Array, "B W"], Float[Array, "B W"]]:
    """The same of a row in writing."""
    mask: Bool[Array, "B W"] = batch["text_mask"]
    read = Frames(jnp.where(mask[..., None], model.embed(batch["text_ids"]), 0), mask)
    answer = batch.get("answer_ids")
    features = model.run(read, answer)
    if answer is not None:
        return features, answer, batch["target_weight"].astype(jnp.float32)
    return features, *following(batch["text_ids"], batch["text_weight"].astype(jnp.float32), mask)
