"""Vocoders for `parity`: the first convolution, every stage, the wave.

Inputs: `features` [B, T, D], or `units` [B, T] with `speaker`, `language` [B], `f0_hz` and `voiced` [B, T] as far as a
model reads them; `mask` [B, T].
"""

from collections.abc import Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from slm_jax.core.trees import flatten_by_path
from slm_jax.decoders.length import regulate
from slm_jax.decoders.mel_vocoder import MelVocoder, MelVocoderConfig
from slm_jax.decoders.unit_vocoder import STREAMS, TABLES, UnitVocoder, UnitVocoderConfig
from slm_jax.workbench.comparable import Case, Comparable, Found, Inputs

STEPS = 23
LONGEST = 16
"""Frames of an average unit for which there is room."""
CAPTURE = {
    "capture_intermediates": lambda module, method: (
        method == "__call__" and (module.name or "").startswith(("conv_pre", "block_"))
    ),
    "mutable": ["intermediates"],
}


def _cases(inputs: Inputs) -> Iterable[Case]:
    """Of three rows: the first alone, then all."""
    mask = np.arange(STEPS) < np.array([[STEPS], [9], [1]])
    first = {name: value[:1] for name, value in inputs.items()} | {"mask": np.ones((1, STEPS), bool)}
    yield Case("plain", first, alone=True)
    yield Case("batch against utterance", {**inputs, "mask": mask}, alone=True)


def _mel_cases(config: MelVocoderConfig, rng: np.random.Generator, tiny: bool) -> Iterable[Case]:
    """Random mels; those of a real model have the mean and spread of log magnitudes."""
    centre, spread = (0.0, 1.0) if tiny else (-5.0, 2.0)
    values = centre + spread * rng.standard_normal((3, STEPS, config.mels))
    return _cases({"features": values.astype(np.float32)})


def _unit_cases(config: UnitVocoderConfig, rng: np.random.Generator, tiny: bool) -> Iterable[Case]:
    """Random units with what they need."""
    inputs: Inputs = {"units": rng.integers(1, config.units, (3, STEPS))}
    for name, kind in sorted(TABLES.items(), key=lambda one: one[0] != "speaker"):
        if getattr(config, kind):
            inputs[name] = rng.integers(0, getattr(config, kind), (3, STEPS) if name in STREAMS else 3)
    if config.pitch:
        inputs["f0_hz"] = rng.uniform(80.0, 300.0, (3, STEPS)).astype(np.float32)
        inputs["voiced"] = rng.random((3, STEPS)) < 0.6
    return _cases(inputs)


def _collect_mel(model: MelVocoder, params: Any, inputs: Mapping[str, jax.Array]) -> Found:
    mask = inputs["mask"]
    wave, inside = model.apply({"params": params}, inputs["features"], mask, **CAPTURE)
    return _generator(wave, inside, mask)


def _collect_unit(model: UnitVocoder, params: Any, inputs: Mapping[str, jax.Array]) -> Found:
    """Units are drawn out to their predicted durations where the model predicts any, else they are frames already."""
    durations = model.config.durations is not None

    def pieces(model: UnitVocoder, units: jax.Array, mask: jax.Array, **others: jax.Array) -> tuple:
        log_durations = model.log_durations(units, mask) if durations else units
        if durations:
            capacity = LONGEST * units.shape[1]
            units, mask = regulate(units, model.predicted_frames(units, mask), mask, capacity)
        return log_durations, mask, model(units, mask, **others)

    (log_durations, real, wave), inside = model.apply({"params": params}, **inputs, method=pieces, **CAPTURE)
    found = {"log_durations": (log_durations[..., None], inputs["mask"])} if durations else {}
    return found | _generator(wave, inside, real)


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


MEL_VOCODER = Comparable(cases=_mel_cases, collect=_collect_mel, moved="up_0/bias")
UNIT_VOCODER = Comparable(cases=_unit_cases, collect=_collect_unit, moved="up_0/bias")
