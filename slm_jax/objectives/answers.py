"""The objective of speech-aware language models: the words of an answer, given speech and words before it."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from slm_jax.assemblies.prompt_scaled import with_factors
from slm_jax.assemblies.speech_aware_lm import feature_mask_name, features_name
from slm_jax.core.contracts import Batch, Loss, Term, Variables
from slm_jax.core.trees import together
from slm_jax.core.types import Frames
from slm_jax.objectives.next_token import LARGE_VOCABULARY, NextTokenConfig, summed

CHUNK = 32
"""Entries of all rows whose logits exist at once where the vocabulary is large: answers are short."""


@dataclasses.dataclass(frozen=True)
class Answers:
    """Cross-entropy of the entries that `target_weight` counts, each given all before it in its row.

    The batch holds what `data.examples.speech_prompts` makes: `ids`, `speech_at`, `mask`, `target_weight` `[B, S]`, and
    either `samples` with `sample_mask` `[B, C, N]` or the encoder's `features` `[B, C, T, E]` with `feature_mask`
    (`features_1` ... of several). For an encoder-decoder the answer has a row of its own, `answer_ids` with
    `target_weight` `[B, A]`, given all of `ids`. Where LoRA counts by what is asked there are `asked_ids` and
    `asked_mask` `[B, P]`. `model`: a `SpeechAwareLM`, with adapters or without; its parts lie in
    `variables` or, those that nobody trains, in `frozen["frozen"]`. Encoders of which nothing is trained hear without
    dropout, as they do in use. Counts the weights; metrics `nll` (nats per target) and `accuracy`.
    """

    model: Any
    config: NextTokenConfig

    def __call__(self, variables: Variables, batch: Batch, rng: jax.Array | None, frozen: Any = None) -> Loss:
        batch = {name: jnp.asarray(value) for name, value in batch.items()}
        whole = with_factors(self.model, together(variables, frozen), batch)
        how = {"deterministic": rng is None, "hears_alike": rng is None or not trains_encoders(variables)}
        rngs = None if rng is None else {"dropout": rng}
        features, targets, counted = self.model.apply(whole, batch, method=read_rows, rngs=rngs, **how)
        config = self.config.replace(chunk=CHUNK) if self._in_chunks else self.config
        sums, count = summed(self.model, config, whole, *packed(features, targets, counted)), count_of(batch)
        return Loss({"answer": Term(sums.loss, count)}, {"nll": (sums.nll, count), "accuracy": (sums.correct, count)})

    @property
    def _in_chunks(self) -> bool:
        return self.config.chunk == "auto" and self.model.config.vocabulary >= LARGE_VOCABULARY


def trains_encoders(variables: Variables) -> bool:
    """Is there anything of an encoder among what is trained, weights or LoRA?"""
    return any(name.startswith("encoder") for tree in variables.values() for name in tree)


def following(
    ids: Int[Array, "B S"], weight: Float[Array, "B S"], mask: Bool[Array, "B S"]
) -> tuple[Int[Array, "B S"], Float[Array, "B S"]]:
    """For each entry the next real one of its row and how much that counts, 0 where there is none."""
    places = jnp.where(mask, jnp.arange(ids.shape[1]), ids.shape[1])
    after = jax.lax.cummin(places[:, 1:], axis=1, reverse=True)
    after = jnp.pad(after, ((0, 0), (0, 1)), constant_values=ids.shape[1])
    known = mask & (after < ids.shape[1])
    taken = [jnp.take_along_axis(x, jnp.minimum(after, ids.shape[1] - 1), axis=1) for x in (ids, weight)]
    return jnp.where(known, taken[0], 0), jnp.where(known, taken[1], 0.0)


def count_of(batch: Batch) -> Float[Array, ""]:
    """The sum of the weights of a batch, without the model: what is not real to it is speech, which nobody counts."""
    weight = batch["target_weight"].astype(jnp.float32)
    return (weight if "answer_ids" in batch else following(batch["ids"], weight, batch["mask"])[1]).sum()


def packed(
    features: Float[Array, "B S D"], targets: Int[Array, "B S"], counted: Float[Array, "B S"]
) -> tuple[Float[Array, "B S D"], Int[Array, "B S"], Float[Array, "B S"]]:
    """The same entries, those that count first: behind them a large vocabulary is not looked at."""
    order = jnp.argsort(counted <= 0, axis=1, stable=True)
    targets, counted = (jnp.take_along_axis(x, order, axis=1) for x in (targets, counted))
    return jnp.take_along_axis(features, order[..., None], axis=1), targets, counted


def kept_frames(batch: Batch, place: int) -> Frames:
    """What an encoder made of the clips of a batch, when it was asked: Frames of B C rows."""
    values, mask = batch[features_name(place)], batch[feature_mask_name(place)]
    return Frames(values.reshape(-1, *values.shape[2:]), mask.reshape(-1, mask.shape[-1]))


def read_rows(
    model: Any, batch: Batch, *, deterministic: bool = True, hears_alike: bool = True
) -> tuple[Float[Array, "B S D"], Int[Array, "B S"], Float[Array, "B S"]]:
    """What the head of a `SpeechAwareLM` reads of a batch, what is to follow there, and how much that counts.

    `hears_alike`: the encoders use no dropout.
    """
    speech = speech_of(model, batch, deterministic=deterministic, hears_alike=hears_alike)
    return read_beside(model, batch, speech, deterministic=deterministic)


def speech_of(model: Any, batch: Batch, *, deterministic: bool = True, hears_alike: bool = True) -> Frames:
    """What a `SpeechAwareLM` reads of the clips of a batch: Frames of B C rows."""
    if features_name(0) in batch:
        heard = model.joined([kept_frames(batch, place) for place in range(len(model.config.encoders))])
    else:
        heard = model.heard(batch["samples"], batch["sample_mask"], deterministic=hears_alike)
    return model.speech(heard, deterministic=deterministic)


def read_beside(
    model: Any, batch: Batch, speech: Frames, *, deterministic: bool = True
) -> tuple[Float[Array, "B S D"], Int[Array, "B S"], Float[Array, "B S"]]:
    """The same as `read_rows`, where what is read of the clips is known already."""
    read = model.vectors(batch["ids"], speech, batch["speech_at"], batch["mask"])
    answer, weight = batch.get("answer_ids"), batch["target_weight"].astype(jnp.float32)
    memory, written = model.memory(speech, len(read.mask)), jnp.cumsum(weight > 0, axis=1, dtype=jnp.int32)
    features = model.run(read, answer, memory, written, deterministic=deterministic)
    return features, *(following(batch["ids"], weight, read.mask) if answer is None else (answer, weight))
