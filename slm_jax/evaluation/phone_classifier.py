"""A small phone classifier on log-mel frames, trained on true phones, by which made-up speech is judged."""

import dataclasses
import json
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int

from slm_jax.audio.mel import LogMelConfig
from slm_jax.core.config import Config, from_json
from slm_jax.core.errors import require

Params = dict[str, Array]
Example = tuple[Float[np.ndarray, "_"], Int[np.ndarray, "_"]]
"""N samples and T frame labels of one utterance."""


class PhoneClassifierConfig(Config):
    """Log-mel frames at 50 Hz with `context` frames on each side -> hidden layer -> softmax over `phones`.

    `hidden` 0 makes it linear. Trained with Adam for `steps` batches of `batch` frames.
    """

    phones: int
    mel: LogMelConfig = LogMelConfig(hop=320, mels=40)
    context: int = 4
    hidden: int = 256
    steps: int = 1_500
    batch: int = 512
    learning_rate: float = 2e-3

    def __post_init__(self) -> None:
        require(self.phones > 1, "phones", self.phones, "at least 2")
        require(self.context >= 0, "context", self.context, "0 or more frames")
        require(self.hidden >= 0, "hidden", self.hidden, "0 (linear) or a width")
        require(self.steps > 0 and self.batch > 0, "steps, batch", (self.steps, self.batch), "positive")

    def make(self) -> "PhoneClassifierTrainer":
        """The trainer."""
        return PhoneClassifierTrainer(self)


@dataclasses.dataclass(frozen=True)
class PhoneClassifier:
    """A trained classifier: its config, parameters, and the statistics its features are standardised with."""

    config: PhoneClassifierConfig
    params: Params
    mean: Float[np.ndarray, "M"]
    deviation: Float[np.ndarray, "M"]

    def posterior(self, samples: Float[np.ndarray, "N"]) -> Float[np.ndarray, "T P"]:
        """p(phone) of each 20 ms frame."""
        features = _features(samples, self.config)
        padded = np.pad(features, ((0, -len(features) % 64), (0, 0)), mode="edge" if len(features) else "constant")
        logits = _frame_logits(self.params, padded, self.mean, self.deviation, self.config.context)
        return np.asarray(jax.nn.softmax(logits))[: len(features)]

    def accuracy(self, examples: Iterable[Example]) -> float:
        """Share of labelled frames whose most likely phone is the true one."""
        right = total = 0
        for samples, labels in examples:
            guess = self.posterior(samples).argmax(axis=1)
            size = min(len(guess), len(labels))
            kept = labels[:size] >= 0
            right += int((guess[:size] == labels[:size])[kept].sum())
            total += int(kept.sum())
        require(total > 0, "labelled frames", total, "at least one is needed")
        return right / total

    def save(self, path: str | Path) -> None:
        """Write everything into one `.npz` file."""
        settings = np.frombuffer(json.dumps(self.config.to_json()).encode(), np.uint8)
        arrays: dict[str, Any] = {f"params/{name}": np.asarray(value) for name, value in self.params.items()}
        np.savez(path, config=settings, mean=self.mean, deviation=self.deviation, **arrays)

    @classmethod
    def load(cls, path: str | Path) -> "PhoneClassifier":
        """What `save` wrote."""
        with np.load(path) as file:
            config = from_json(json.loads(file["config"].tobytes()))
            require(isinstance(config, PhoneClassifierConfig), "file", str(path), "must hold a phone classifier")
            params = {k.removeprefix("params/"): jnp.asarray(file[k]) for k in file.files if k.startswith("params/")}
            return cls(config, params, file["mean"], file["deviation"])  # type: ignore[arg-type]


class PhoneClassifierTrainer:
    """Fits a `PhoneClassifier`."""

    def __init__(self, config: PhoneClassifierConfig) -> None:
        self.config = config

    def fit(self, examples: Iterable[Example], key: jax.Array) -> PhoneClassifier:
        """Train on (samples [N] at the mel's rate, labels [T] at 50 Hz, negative = not labelled) pairs."""
        frames, labels, windows = _windowed(examples, self.config)
        mean, deviation = frames.mean(axis=0), frames.std(axis=0) + 1e-3
        start, order = jax.random.split(key)
        params = _initial(self.config, start)
        standardised = jnp.asarray((frames - mean) / deviation)
        params = _fitted(params, standardised, jnp.asarray(windows), jnp.asarray(labels), order, self.config)
        return PhoneClassifier(self.config, params, mean, deviation)


@dataclasses.dataclass(frozen=True, kw_only=True)
class PosteriorStatistics:
    """How sure the classifier is: `mean_highest` posterior (1 = clear phones), `entropy` in nats, on `frames`."""

    mean_highest: float
    entropy: float
    frames: int

    def to_json(self) -> dict[str, Any]:
        """Plain numbers by name."""
        return dataclasses.asdict(self)


def posterior_statistics(posteriors: list[Float[np.ndarray, "_ P"]]) -> PosteriorStatistics:
    """Mean highest posterior and mean entropy over the frames of several utterances."""
    joined = np.concatenate(posteriors)
    require(len(joined) > 0, "frames", 0, "at least one is needed")
    entropy = -np.sum(joined * np.log(np.maximum(joined, 1e-12)), axis=1)
    highest = joined.max(axis=1)
    return PosteriorStatistics(mean_highest=float(highest.mean()), entropy=float(entropy.mean()), frames=len(joined))


def _features(samples: Float[np.ndarray, "N"], config: PhoneClassifierConfig) -> Float[np.ndarray, "T M"]:
    """Log-mel frames; computed on whole seconds, so that few shapes are compiled."""
    mel, samples = config.mel.make(), np.asarray(samples, np.float32)
    padded = np.pad(samples, (0, -len(samples) % config.mel.rate_hz))
    return np.asarray(mel(padded[None]))[0, : mel.frame_count(len(samples))]  # a cut in JAX compiles for every length


def _windowed(
    examples: Iterable[Example], config: PhoneClassifierConfig
) -> tuple[Float[np.ndarray, "T M"], Int[np.ndarray, "E"], Int[np.ndarray, "E W"]]:
    """All frames, and for each labelled one its label and the rows of its context (clamped to its utterance)."""
    frames, labels, windows, first = [], [], [], 0
    around = np.arange(-config.context, config.context + 1)
    for samples, given in examples:
        features = _features(samples, config)
        size = min(len(features), len(given))
        kept = np.flatnonzero(np.asarray(given)[:size] >= 0)
        windows.append(first + np.clip(kept[:, None] + around, 0, len(features) - 1))
        labels.append(np.asarray(given)[kept])
        frames.append(features)
        first += len(features)
    joined = np.concatenate(labels) if labels else np.zeros(0, np.int32)
    require(len(joined) > 0, "labelled frames", 0, "at least one is needed")
    require(int(joined.max()) < config.phones, "label", int(joined.max()), f"under phones = {config.phones}")
    return np.concatenate(frames), joined.astype(np.int32), np.concatenate(windows).astype(np.int32)


def _initial(config: PhoneClassifierConfig, key: jax.Array) -> Params:
    width = config.mel.mels * (2 * config.context + 1)
    sizes = [width, config.hidden, config.phones] if config.hidden else [width, config.phones]
    keys = jax.random.split(key, len(sizes) - 1)
    layers = enumerate(zip(sizes[:-1], sizes[1:], keys, strict=True))
    params: Params = {}
    for i, (fan_in, fan_out, layer_key) in layers:
        params[f"kernel_{i}"] = jax.random.normal(layer_key, (fan_in, fan_out)) * fan_in**-0.5
        params[f"bias_{i}"] = jnp.zeros(fan_out)
    return params


def _logits(params: Params, inputs: Float[Array, "E D"]) -> Float[Array, "E P"]:
    hidden = inputs @ params["kernel_0"] + params["bias_0"]
    if "kernel_1" not in params:
        return hidden
    return jax.nn.gelu(hidden) @ params["kernel_1"] + params["bias_1"]


@partial(jax.jit, static_argnames="context")
def _frame_logits(
    params: Params, features: Float[Array, "T M"], mean: Array, deviation: Array, context: int
) -> Float[Array, "T P"]:
    rows = jnp.arange(len(features))[:, None] + jnp.arange(-context, context + 1)
    windows = ((features - mean) / deviation)[jnp.clip(rows, 0, len(features) - 1)]
    return _logits(params, windows.reshape(len(features), -1))


@partial(jax.jit, static_argnames="config")
def _fitted(
    params: Params,
    frames: Float[Array, "T M"],
    windows: Int[Array, "E W"],
    labels: Int[Array, "E"],
    key: jax.Array,
    config: PhoneClassifierConfig,
) -> Params:
    """The whole training as one loop: batches drawn with replacement, Adam with a cosine to zero."""
    optimizer = optax.adam(optax.cosine_decay_schedule(config.learning_rate, config.steps))

    def loss(params: Params, chosen: Array) -> Array:
        inputs = frames[windows[chosen]].reshape(config.batch, -1)
        return optax.softmax_cross_entropy_with_integer_labels(_logits(params, inputs), labels[chosen]).mean()

    def step(i: Any, state: tuple[Params, Any]) -> tuple[Params, Any]:
        params, moments = state
        chosen = jax.random.randint(jax.random.fold_in(key, i), (config.batch,), 0, labels.shape[0])
        updates, moments = optimizer.update(jax.grad(loss)(params, chosen), moments, params)
        return optax.apply_updates(params, updates), moments

    return jax.lax.fori_loop(0, config.steps, step, (params, optimizer.init(params)))[0]
