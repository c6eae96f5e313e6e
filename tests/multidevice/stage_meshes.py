"""The program behind `test_stage_meshes.py`: an encoder, a vocoder and a codec with judges, on one device and on eight.

Arguments: names of stages. Two steps of each, on drawn batches of the shapes that its outline tells; what is returned:
by how much losses and parameters of eight devices differ from those of one.
"""

import dataclasses
from typing import Any

import jax
import numpy as np

from slm_jax.core.trees import flatten_by_path
from slm_jax.decoders.discriminators import DiscriminatorsConfig
from slm_jax.parallel.mesh import MeshConfig
from slm_jax.training.gradient_stage import Outline
from slm_jax.training.optimizer import OptimizerConfig
from tests.end_to_end.smallest import UNITS, config
from tests.multidevice.steps import shards, take_steps
from tests.training.small_codec import STAGE

STEPS, ROWS = 2, 8
JUDGES = DiscriminatorsConfig(
    periods=(2, 3), period_widths=(8, 16), scales=2, scale_layers=((8, 15, 1, 1), (16, 11, 2, 4)), spectral_first=False
)
CODEC = STAGE.replace(
    model=STAGE.model.replace(quantizer=STAGE.model.quantizer.replace(dropout=0.0)),
    losses=STAGE.losses.replace(resolutions=((64, 16, 4), (128, 32, 8))),
)
"""Nothing is drawn while it trains, so that micro-batches see what the whole batch sees. Spectra in mels: the
logarithm of an empty bin has a gradient without bound, which enlarges rounding a thousandfold."""
MESHES = {
    "fsdp": MeshConfig(data=1, fsdp=8, rules="fsdp"),
    "fsdp+tensor": MeshConfig(data=1, fsdp=4, tensor=2, rules="fsdp+tensor"),
}


def outline_of(name: str) -> Outline:
    """The stage with eight rows a batch and plain gradient descent, which does not enlarge rounding."""
    stage = CODEC if name == "codec" else config.stage(name)
    if name == "vocoder":
        stage = stage.replace(discriminators=JUDGES)
    outline = stage.replace(batches=stage.batches.replace(batch=ROWS)).outline(config)
    slow = OptimizerConfig(name="sgd", learning_rate=0.05, schedule="constant")
    players = [dataclasses.replace(each, optimizer=slow, start=0, every=1) for each in outline.players]
    return dataclasses.replace(outline, players=players)


def batches(outline: Outline) -> list[dict[str, np.ndarray]]:
    """Everything real, labels drawn."""
    rng = np.random.default_rng(0)

    def drawn(name: str, shape: jax.ShapeDtypeStruct) -> np.ndarray:
        if shape.dtype == bool and name == "sample_mask":
            return (
                np.arange(shape.shape[1])
                < rng.integers(shape.shape[1] // 2, shape.shape[1] + 1, shape.shape[:1])[:, None]
            )
        if shape.dtype == bool:
            return np.arange(shape.shape[-1]) % 5 < 3 if len(shape.shape) == 1 else rng.random(shape.shape) < 0.7
        if np.issubdtype(shape.dtype, np.integer):
            return rng.integers(0, UNITS, shape.shape).astype(shape.dtype)
        return (0.3 * rng.standard_normal(shape.shape)).astype(shape.dtype)

    return [{name: drawn(name, shape) for name, shape in outline.batch.items()} for _ in range(STEPS)]


def trained(
    outline: Outline, place: MeshConfig, devices: list[Any], accumulate: int = 1
) -> tuple[dict[str, np.ndarray], dict[str, list]]:
    """Variables and losses after the steps, and how the weights lay."""
    state, outputs = take_steps(outline.initialise, outline.players, batches(outline), place, devices, accumulate)
    found = {path: np.asarray(leaf) for path, leaf in flatten_by_path(state.variables).items()}
    for number, out in enumerate(outputs):
        found |= {f"{number}/{name}": np.asarray(total / count) for name, (total, count) in out.sums.items()}
    return found, shards(state)


def main(*stages: str) -> dict[str, Any]:
    devices = jax.devices()
    results: dict[str, Any] = {}
    for stage in stages:
        outline = outline_of(stage)
        one, _ = trained(outline, MeshConfig(), devices[:1])
        cuts = {"two micro-batches": (MeshConfig(), devices[:1], 2)} if stage == "codec" else {}
        for name, settings in {**{name: (place, devices) for name, place in MESHES.items()}, **cuts}.items():
            many, lies = trained(outline, *settings)
            assert many.keys() == one.keys()
            largest = {path: max(1.0, float(np.abs(value).max())) for path, value in one.items()}
            apart = {path: float(np.abs(many[path] - one[path]).max()) / largest[path] for path in one}
            spread = sum(lies[path] != list(one[f"params/{path}"].shape) for path in lies)
            finite = all(np.isfinite(value).all() for value in one.values())
            results[f"{stage}, {name}"] = {"apart": apart, "spread": spread, "of": len(lies), "finite": finite}
    return results
