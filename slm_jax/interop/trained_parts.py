"""What files share that hold what a speech-aware text LM trained, under the names of its own code, and nothing else.

Their variables lie where `SpeechAwareLM` has them: `params/adapter`, `params/join`, `lora/lm`.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax.core import meta

from slm_jax.assemblies.speech_aware_lm import SpeechAwareLMConfig
from slm_jax.core.types import Frames
from slm_jax.interop.engine import MappingError, import_params, resolve
from slm_jax.interop.readers import open_weights
from slm_jax.interop.table import Table
from slm_jax.nn.lora import LoRAConfig, each_config, lora_initialise

LORA_LM = "lora/lm/"


def load_named(path: str | Path, table: Table, targets: Any, what: str) -> dict[str, Any]:
    """The variables in a file as float32 NumPy arrays; `what` it should be is named where it is not.

    Raises `MappingError` listing every name that has no place, every place left empty, every wrong shape.
    """
    source = open_weights(path)
    try:
        plan = resolve(table, source.shapes, targets, source.dtypes)
    except MappingError as error:
        raise MappingError(error.faults, f"{source.path} is no {what} of this shape") from None
    return import_params(plan, source.read)


def as_tensors(arrays: Iterable[tuple[str, np.ndarray]]) -> dict[str, Any]:
    """The arrays as PyTorch's, by name, for `torch.save`."""
    import torch

    return {name: torch.from_numpy(np.array(array)) for name, array in arrays}


def abstract_frames(config: Any, *widths: int) -> Any:
    """Shapes of the parameters of an adapter or a join of streams of so many channels; nothing is computed."""
    streams = [Frames(jnp.zeros((1, 1, width)), jnp.ones((1, 1), bool)) for width in widths]
    return meta.unbox(jax.eval_shape(config.make().init, jax.random.key(0), *streams)["params"])


def abstract_lora(model: SpeechAwareLMConfig, lora: LoRAConfig | tuple[LoRAConfig, ...]) -> dict[str, Any]:
    """Shapes of adapters whose `targets` begin with `lm/`."""
    own = tuple(one.replace(targets=one.targets.removeprefix("lm/")) for one in each_config(lora))
    make = lora_initialise(lambda key: model.lm.make().init(key, jnp.zeros((1, 2), jnp.int32)), own)
    return meta.unbox({"lm": jax.eval_shape(make, jax.random.key(0))["lora"]})
