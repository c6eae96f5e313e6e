"""What passes through our models, by the names that `interop.references` gives to the same places in PyTorch's."""

import dataclasses
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from slm_jax.core.config import Config
from slm_jax.core.trees import flatten_by_path
from slm_jax.decoders.length import regulate
from slm_jax.decoders.mel_vocoder import MelVocoder, MelVocoderConfig
from slm_jax.decoders.unit_vocoder import UnitVocoder, UnitVocoderConfig
from slm_jax.encoders.ssl import SSLEncoder, SSLEncoderConfig
from slm_jax.sequence_models.decoder import Decoder
from slm_jax.sequence_models.decoder_config import DecoderConfig

Inputs = Mapping[str, np.ndarray]
Found = dict[str, tuple[jax.Array, jax.Array]]
LONGEST = 16
"""Frames of an average unit for which there is room."""


class Activation(NamedTuple):
    """Values [B, steps, ...] and which steps are real [B, steps]."""

    values: np.ndarray
    real: np.ndarray

    def kept(self) -> np.ndarray:
        """The real steps of all rows, one after the other."""
        return self.values[self.real]


Run = Callable[[Any, Inputs], dict[str, Activation]]


def runner(config: Any) -> Run:
    """`run(params, inputs)` -> name -> activation; compiled once per shape of the inputs."""
    collect = jax.jit(partial(_COLLECTORS[type(config)], config.make()))

    def run(params: Any, inputs: Inputs) -> dict[str, Activation]:
        found = collect(params, {name: _as_jax(value) for name, value in inputs.items()})
        return {name: Activation(np.asarray(values), np.asarray(real)) for name, (values, real) in found.items()}

    return run


def in_dtype(config: Any, dtype: str) -> Any:
    """The config with this compute dtype in all its parts that have one."""
    changes: dict[str, Any] = {}
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if field.name == "dtype":
            changes["dtype"] = dtype
        elif isinstance(value, Config):
            changes[field.name] = in_dtype(value, dtype)
    return config.replace(**changes)


def _decoder(model: Decoder, params: Any, inputs: dict[str, jax.Array]) -> Found:
    def pieces(model: Decoder, ids: jax.Array, mask: jax.Array | None) -> tuple[jax.Array, jax.Array, jax.Array]:
        features = model.hidden(ids, mask=mask)
        return model.hidden_states(ids, mask=mask), features, model.head(features)

    config, ids = model.config, inputs["ids"]
    hidden, features, logits = model.apply({"params": params}, ids, inputs["mask"], method=pieces)
    found = {"embeddings": hidden[0]} | {f"layer_{i}": hidden[i] for i in range(1, len(hidden))}
    if config.table_width != config.width:
        found["project_out"] = features
    elif config.final_norm:
        found["final_norm"] = features
    return {name: (values, inputs["mask"]) for name, values in (found | {"logits": logits}).items()}


def _encoder(model: SSLEncoder, params: Any, inputs: dict[str, jax.Array]) -> Found:
    out, inside = model.apply(
        {"params": params},
        inputs["samples"],
        inputs["mask"],
        collect=True,
        capture_intermediates=lambda module, method: method == "__call__" and module.name == "feature_projection",
        mutable=["intermediates"],
    )
    (projection,) = jax.tree.leaves(inside)
    found = {"features": out.features, "projection": projection, "positions": out.hidden[0]}
    found |= {f"layer_{i}": out.hidden[i] for i in range(1, len(out.hidden))}
    found |= {"final_norm": out.values} if model.config.pre_norm else {}
    return {name: (values, out.mask) for name, values in found.items()}


def _mel_vocoder(model: MelVocoder, params: Any, inputs: dict[str, jax.Array]) -> Found:
    mask = inputs["mask"]
    wave, inside = model.apply({"params": params}, inputs["features"], mask, **_CAPTURE)
    return _generator(wave, inside, mask)


def _unit_vocoder(model: UnitVocoder, params: Any, inputs: dict[str, jax.Array]) -> Found:
    """Units are drawn out to their predicted durations where the model predicts any, else they are frames already."""
    durations = model.config.durations is not None

    def pieces(model: UnitVocoder, units: jax.Array, mask: jax.Array, **others: jax.Array) -> tuple:
        log_durations = model.log_durations(units, mask) if durations else units
        if durations:
            capacity = LONGEST * units.shape[1]
            units, mask = regulate(units, model.predicted_frames(units, mask), mask, capacity)
        return log_durations, mask, model(units, mask, **others)

    (log_durations, real, wave), inside = model.apply({"params": params}, **inputs, method=pieces, **_CAPTURE)
    found = {"log_durations": (log_durations[..., None], inputs["mask"])} if durations else {}
    return found | _generator(wave, inside, real)


_CAPTURE = {
    "capture_intermediates": lambda module, method: (
        method == "__call__" and (module.name or "").startswith(("conv_pre", "block_"))
    ),
    "mutable": ["intermediates"],
}


def _generator(wave: jax.Array, inside: Any, mask: jax.Array) -> Found:
    """The first convolution, the mean of each stage's blocks, the wave."""
    modules = {path.split("/")[-3]: leaf for path, leaf in flatten_by_path(inside).items()}
    found = {"conv_pre": modules["conv_pre"]}
    stages = 1 + max(int(name.split("_")[1]) for name in modules if name.startswith("block_"))
    for stage in range(stages):
        blocks = [leaf for name, leaf in modules.items() if name.startswith(f"block_{stage}_")]
        found[f"stage_{stage + 1}"] = sum(blocks) / len(blocks)
    found["wave"] = wave[..., None]
    return {
        name: (values, jnp.repeat(mask, values.shape[1] // mask.shape[1], axis=1)) for name, values in found.items()
    }


_COLLECTORS: dict[type[Config], Callable[..., Found]] = {
    DecoderConfig: _decoder,
    SSLEncoderConfig: _encoder,
    MelVocoderConfig: _mel_vocoder,
    UnitVocoderConfig: _unit_vocoder,
}


def _as_jax(value: np.ndarray) -> jax.Array:
    """Whole numbers become int32 also where JAX has 64 bits."""
    return jnp.asarray(value, jnp.int32) if np.issubdtype(value.dtype, np.integer) else jnp.asarray(value)
