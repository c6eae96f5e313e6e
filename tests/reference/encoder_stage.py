"""A stage that trains a speech encoder and knows no units: it guesses how loud the frames are that it cannot see."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from slm_jax.core.config import Config
from slm_jax.core.contracts import Batch, Loss, Term, Variables
from slm_jax.data.examples.masked_speech import mask_spans
from slm_jax.data.passes import float_samples
from slm_jax.data.pipeline import make_batches
from slm_jax.data.shapes import stacked_shapes
from slm_jax.encoders.ssl import SSLEncoder, SSLEncoderConfig
from slm_jax.nn.linear import Linear
from slm_jax.training.gradient_stage import GradientStageConfig, Learner, Outline, Plan, host_share
from slm_jax.training.run_folder import StageFolder
from slm_jax.training.stages import RunConfig, StageContext
from slm_jax.training.step import Player

FLOOR = 1e-4


class LoudnessModel(nn.Module):
    """Encoder (parameters under `encoder`) and one number per frame."""

    config: SSLEncoderConfig

    @nn.compact
    def __call__(self, samples: Any, mask: Any = None, hidden: Any = None, *, deterministic: bool = True) -> Any:
        """Guesses [B, T] and the mask of the frames [B, T]."""
        out = SSLEncoder(self.config, name="encoder")(samples, mask, hidden, deterministic=deterministic)
        return Linear(1, ("embed",), (None,), name="loudness")(out.values)[..., 0], out.mask


class LoudnessObjective:
    """Squared error of the log power of hidden frames. Counts hidden frames."""

    def __init__(self, model: LoudnessModel, hop: int) -> None:
        self.model, self.hop = model, hop

    def __call__(self, variables: Variables, batch: Batch, rng: jax.Array | None, frozen: Any = None) -> Loss:
        samples, mask, hidden = (jnp.asarray(batch[name]) for name in ("samples", "sample_mask", "hidden"))
        rngs = None if rng is None else {"dropout": rng}
        guess, real = self.model.apply(variables, samples, mask, hidden, deterministic=rng is None, rngs=rngs)
        counted = hidden & real
        error = jnp.where(counted, jnp.square(guess - loudness(samples, self.hop, guess.shape[1])), 0.0)
        return Loss({"loudness": Term(error.sum(), counted.sum(dtype=jnp.float32))}, {})


def loudness(samples: jax.Array, hop: int, frames: int) -> jax.Array:
    """Log power of every `hop` samples, [B, T]."""
    blocks = samples[:, : frames * hop].reshape(len(samples), frames, hop)
    return jnp.log(jnp.square(blocks).mean(-1) + FLOOR)


class EncoderStageConfig(GradientStageConfig):
    """Trains `encoder` on crops of `crop` samples of channel 0."""

    encoder: SSLEncoderConfig
    hop: int
    crop: int

    def plan(self, folder: StageFolder, context: StageContext) -> Plan:
        source = context.source("train", ("sentence",))
        return Plan(*self._learner(), batches=make_batches(source, self.example(), self.batches, **self._share()))

    def outline(self, run: RunConfig) -> Outline:
        rows, item = self.batches.batch, {"samples": np.zeros(self.crop, np.float32)}
        shapes = stacked_shapes(self.example()(item, np.random.default_rng(0)), rows)
        speech_s = rows * self.crop / run.corpus.rate_hz
        return Outline(*self._learner(), batch=shapes, tokens=rows * self._frames, speech_s=speech_s)

    def model_of(self, folder: StageFolder) -> tuple[Config, str]:
        return self.encoder, "encoder"

    def planned_model(self, run: RunConfig) -> Config:
        return self.encoder

    def example(self) -> Callable[[dict[str, Any], np.random.Generator], dict[str, np.ndarray]]:
        """An item to `samples`, `sample_mask` [N] and `hidden` [T]."""

        def make(item: dict[str, Any], rng: np.random.Generator) -> dict[str, np.ndarray]:
            samples = float_samples(item["samples"])
            samples = samples[: self.crop] if samples.ndim == 1 else samples[: self.crop, 0]
            hidden = mask_spans(int(self.encoder.frame_count(len(samples))), rng, share=0.5, span=5, min_spans=1)
            return {
                "samples": np.pad(samples, (0, self.crop - len(samples))),
                "sample_mask": np.arange(self.crop) < len(samples),
                "hidden": np.pad(hidden, (0, self._frames - len(hidden))),
            }

        return make

    @property
    def _frames(self) -> int:
        return int(self.encoder.frame_count(self.crop))

    def _share(self) -> dict[str, Any]:
        return host_share(self.train.mesh)

    def _learner(self) -> Learner:
        model = LoudnessModel(self.encoder)
        objective = LoudnessObjective(model, self.hop)
        player = Player(name="encoder", objective=objective, optimizer=self.optimizer)
        return lambda key: model.init(key, jnp.zeros((1, self.crop))), [player]
