"""LoRA that counts as much as what is asked says: the factors of every row, computed once and read at every step."""

from typing import Any

from jaxtyping import Array, Float

from slm_jax.core.contracts import Variables
from slm_jax.nn.lora import ROW_FACTORS

ASKED_IDS, ASKED_MASK = "asked_ids", "asked_mask"
"""In a batch: the bare instruction of every row `[B, P]`, and which of its ids are real."""


def row_factors(model: Any, variables: Variables, batch: dict[str, Any]) -> dict[str, Float[Array, "B D"]]:
    """Adapter's name -> how much each output of it counts in each row of a batch.

    `model`: a `SpeechAwareLM` that has a `prompt_scale`, with adapters (`nn.lora.LoRAModel`), which are left out here:
    what the language model itself makes of the instruction is read.
    """
    scale = model.model.apply(variables, batch[ASKED_IDS], batch[ASKED_MASK], method="prompt_factors")
    return {config.name: model.config.prompt_scale.of(config.name, scale) for config in model.configs}


def with_factors(model: Any, variables: Variables, batch: dict[str, Any]) -> Variables:
    """The variables with these factors, or as they are where the model's LoRA does not ask.

    Decoding is handed what comes of it, so that nothing is computed again step by step.
    """
    if model.config.prompt_scale is None:
        return variables
    return {**variables, ROW_FACTORS: row_factors(model, variables, batch)}
