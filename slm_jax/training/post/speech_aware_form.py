"""What a speech-aware stage is put together of: layers of its encoders, variables as they are born, its batches."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from slm_jax.assemblies.prompt_scaled import ASKED_IDS, ASKED_MASK
from slm_jax.assemblies.speech_aware_lm import SpeechAwareLM
from slm_jax.core.errors import require
from slm_jax.data.shapes import Shapes
from slm_jax.encoders.layer_states import LayersConfig
from slm_jax.nn.lora import LoRAModel

Hears = LayersConfig | None
"""What is heard of an encoder: layers of it side by side, or its frames."""


def layers_of(hears: Sequence[Hears], encoders: Sequence[Any]) -> tuple[Any, ...]:
    """The encoders, with the layers that are heard of each.

    Raises `UserError` unless `hears` says it of each or of none.
    """
    if not hears:
        return tuple(encoders)
    rule = f"one for each of the {len(encoders)} encoders, or none at all"
    require(len(hears) == len(encoders), "hears", len(hears), rule)
    pairs = zip(hears, encoders, strict=True)
    return tuple(encoder if how is None else how.of(encoder) for how, encoder in pairs)


def new_variables(model: SpeechAwareLM | LoRAModel, key: jax.Array) -> dict[str, Any]:
    """All variables of a model as they are born, LoRA too where it has any."""
    samples = jnp.zeros((1, 1, min(16_000, model.config.window or 16_000)), model.config.reads)
    ids = jnp.zeros((1, 2), jnp.int32)
    real = (jnp.ones(samples.shape, bool), jnp.ones(ids.shape, bool))
    return model.init(key, samples, real[0], ids, ids - 1, real[1])


def batch_shapes(stage: Any, rows: int, clip: int, reads: str) -> Shapes:
    """The arrays of a batch of `rows`, whose clips are `clip` entries of dtype `reads`."""

    def array(dtype: Any, *shape: int) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct((rows, *shape), dtype)

    clips = {"samples": array(np.dtype(reads), stage.clips, clip), "sample_mask": array(np.bool_, stage.clips, clip)}
    ids = {"ids": np.int32, "speech_at": np.int32, "mask": np.bool_, "target_weight": np.float32}
    row = {name: array(dtype, stage.length) for name, dtype in ids.items()}
    if stage.written is not None:
        row |= {"answer_ids": array(np.int32, stage.written), "target_weight": array(np.float32, stage.written)}
    if stage.asked is not None:
        row |= {ASKED_IDS: array(np.int32, stage.asked), ASKED_MASK: array(np.bool_, stage.asked)}
    return {**clips, **row, "example": array(np.int64)}
