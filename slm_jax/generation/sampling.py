"""From logits to the next token: the rules that shape a distribution, and the draw."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from slm_jax.core.config import Config
from slm_jax.core.errors import require


class SamplingConfig(Config):
    """How tokens are chosen.

    `temperature` 0 takes the likeliest token. `top_k` keeps the k likeliest, `top_p` the smallest set whose
    probability reaches p. `repetition_penalty` above 1 makes tokens of the prompt and the output less likely.
    `end` and each of `ends` stop a row once they are drawn, not before `min_new` tokens. `forbidden` ids are never
    drawn. `guidance` g draws from u + g (c - u), log-probabilities c with and u without the condition (Ho and Salimans
    2022; MusicGen takes 3): the decoder then needs a prompt without the condition for each row. `temperatures`: one for
    each stream of a model that has several, in the place of `temperature`; `top_ks` likewise, 0 for all ids. `alone`:
    ids of stream 0 below this stand alone in their step, whose other entries stay empty (text that takes turns with
    speech).
    """

    max_new: int = 256
    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None
    repetition_penalty: float = 1.0
    min_new: int = 0
    end: int | None = None
    forbidden: tuple[int, ...] = ()
    ends: tuple[int, ...] = ()
    guidance: float | None = None
    temperatures: tuple[float, ...] = ()
    top_ks: tuple[int, ...] = ()
    alone: int = 0

    def __post_init__(self) -> None:
        require(self.max_new >= 1, "max_new", self.max_new, "must be at least 1")
        require(self.temperature >= 0, "temperature", self.temperature, "must not be negative")
        require(min(self.temperatures, default=0) >= 0, "temperatures", self.temperatures, "must not be negative")
        one = self.temperature == 1 or not self.temperatures
        require(one, "temperature", self.temperature, "stays 1 where each stream has its own")
        require(min(self.top_ks, default=0) >= 0, "top_ks", self.top_ks, "must not be negative")
        once = self.top_k is None or not self.top_ks
        require(once, "top_k", self.top_k, "is None where each stream has its own")
        require(self.alone >= 0, "alone", self.alone, "must not be negative")
        require(self.top_k is None or self.top_k >= 1, "top_k", self.top_k, "must be at least 1")
        require(self.top_p is None or 0 < self.top_p <= 1, "top_p", self.top_p, "must lie in (0, 1]")
        penalty = self.repetition_penalty
        require(penalty > 0, "repetition_penalty", penalty, "must be positive")
        require(0 <= self.min_new <= self.max_new, "min_new", self.min_new, f"must lie in [0, {self.max_new}]")

    @property
    def all_ends(self) -> tuple[int, ...]:
        """Every id that stops a row."""
        return self.ends if self.end is None else (self.end, *self.ends)


def shape_logits(
    logits: Float[Array, "B V"], seen: Bool[Array, "B V"] | None, count: Int[Array, "..."], config: SamplingConfig
) -> Float[Array, "B V"]:
    """Logits after every rule of `config`, in the order of `transformers`; `-inf` for what may not be drawn.

    `seen` marks tokens of the prompt and the output so far (needed with a repetition penalty only); `count` is the
    number of tokens generated so far, one for all rows or one for each.
    """
    legal = jnp.ones((1, logits.shape[-1]), bool)
    if config.all_ends and config.min_new > 0:
        early = jnp.atleast_1d(count)[:, None] < config.min_new
        legal = legal & ~(early & ~legal.at[:, jnp.array(config.all_ends)].set(False))
    if config.forbidden:
        legal = legal & jnp.ones_like(legal[:1]).at[:, jnp.array(config.forbidden)].set(False)
    return narrowed(logits, seen, legal if config.all_ends or config.forbidden else None, config)


def narrowed(
    logits: Float[Array, "B V"],
    seen: Bool[Array, "B V"] | None,
    legal: Bool[Array, "#B V"] | None,
    config: SamplingConfig,
) -> Float[Array, "B V"]:
    """`shape_logits` where what is `legal` was decided elsewhere (None: everything)."""
    logits = logits.astype(jnp.float32)
    if config.repetition_penalty != 1.0:
        logits = jnp.where(seen, penalised(logits, config.repetition_penalty), logits)
    if legal is not None:
        logits = jnp.where(legal, logits, -jnp.inf)
    if config.temperature == 0:
        return logits
    logits = logits / config.temperature
    if config.top_k is not None:
        logits = keep_top_k(logits, config.top_k)
    return logits if config.top_p is None else keep_top_p(logits, config.top_p)


def guided(with_it: Float[Array, "B V"], without: Float[Array, "B V"], guidance: float) -> Float[Array, "B V"]:
    """Log-probabilities without the condition, moved `guidance` times the way to those with it."""
    conditioned, free = (jax.nn.log_softmax(x.astype(jnp.float32), axis=-1) for x in (with_it, without))
    return free + guidance * (conditioned - free)


def draw(logits: Float[Array, "B V"], keys: Key[Array, "B"], config: SamplingConfig) -> Int[Array, "B"]:
    """One token per row from shaped logits; each row draws with its own key, whatever its neighbours are."""
    if config.temperature == 0:
        return jnp.argmax(logits, axis=-1).astype(jnp.int32)
    return jax.vmap(jax.random.categorical)(keys, logits).astype(jnp.int32)


def penalised(logits: Float[Array, "B V"], penalty: float) -> Float[Array, "B V"]:
    """Positive logits divided by `penalty`, negative ones multiplied (Keskar et al. 2019)."""
    return jnp.where(logits > 0, logits / penalty, logits * penalty)


def keep_top_k(logits: Float[Array, "B V"], k: int) -> Float[Array, "B V"]:
    """`-inf` for everything below the k-th largest logit."""
    least = jax.lax.top_k(logits, min(k, logits.shape[-1]))[0][:, -1:]
    return jnp.where(logits < least, -jnp.inf, logits)


def keep_top_p(logits: Float[Array, "B V"], p: float) -> Float[Array, "B V"]:
    """`-inf` outside the smallest set of likeliest tokens whose probability reaches `p`; one always stays."""
    ordered = jnp.sort(logits, axis=-1, descending=True)
    probabilities = jax.nn.softmax(ordered, axis=-1)
    before = jnp.cumsum(probabilities, axis=-1) - probabilities
    kept = jnp.where(before < p, ordered, jnp.inf).at[:, 0].set(ordered[:, 0])
    return jnp.where(logits < kept.min(axis=-1, keepdims=True), -jnp.inf, logits)
