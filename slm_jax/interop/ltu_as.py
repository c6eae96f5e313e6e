"""The released files of LTU-AS (arXiv 2309.14405): what was trained, under the names of a model that `peft` holds.

A flat state dict (`.bin`) with TLTR, its map and LoRA; Vicuna and Whisper lie elsewhere. Adapters of later versions of
`peft`, whose names say `default`, are read too.
"""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from slm_jax.adapters.tltr import TLTRConfig
from slm_jax.assemblies.speech_aware_lm import SpeechAwareLMConfig
from slm_jax.core.errors import require
from slm_jax.interop.engine import export_params
from slm_jax.interop.family_llama import LLAMA
from slm_jax.interop.family_whisper import NAMES, layer_rules
from slm_jax.interop.peft import PREFIX, adapter_table
from slm_jax.interop.table import Table, below, weights
from slm_jax.interop.trained_parts import LORA_LM, abstract_frames, abstract_lora, as_tensors, load_named
from slm_jax.interop.transforms import SAME, Dense
from slm_jax.nn.lora import LoRAConfig

ADAPTER = "params/adapter"
BLOCKS = {"time_tr": "over_time", "layer_tr": "over_layers"}


def load_ltu_as(path: str | Path, model: SpeechAwareLMConfig, lora: LoRAConfig) -> dict[str, Any]:
    """The trained variables in a released file, float32 NumPy arrays: `params/adapter` and `lora`.

    Raises `UserError` for a model of another form, `MappingError` listing everything that does not fit.
    """
    return load_named(path, table(model, lora), abstract_trained(model, lora), "LTU-AS")


def save_ltu_as(path: str | Path, variables: Any, model: SpeechAwareLMConfig, lora: LoRAConfig) -> Path:
    """Write the trained variables as the original code loads them; needs PyTorch."""
    import torch

    torch.save(as_tensors(named_arrays(variables, model, lora)), path)
    return Path(path)


def named_arrays(variables: Any, model: SpeechAwareLMConfig, lora: LoRAConfig) -> Iterable[tuple[str, np.ndarray]]:
    """The trained variables under their released names."""
    params = {"adapter": variables["params"]["adapter"]}
    return export_params(table(model, lora), {"params": params, "lora": variables["lora"]})


def table(model: SpeechAwareLMConfig, lora: LoRAConfig) -> Table:
    """The names of a released file."""
    inside = f"{PREFIX}model."
    blocks = (
        layer_rules(f"{inside}audio_encoder.{theirs}", f"{ADAPTER}/{ours}", NAMES["openai"])
        for theirs, ours in BLOCKS.items()
    )
    return Table(
        rules=(
            *(one for rules in blocks for one in rules),
            *weights(f"{inside}audio_proj.1", f"{ADAPTER}/map", Dense(), SAME),
            *below(adapter_table(LLAMA.table(model.lm, "transformers"), lora.name).rules, PREFIX, LORA_LM),
        ),
        ignored=(re.escape(PREFIX) + r"model\.layers\.\d+\.self_attn\.rotary_emb\.inv_freq",),
        renames=((r"\.lora_([AB])\.default\.weight$", r".lora_\1.weight"),),
    )


def abstract_trained(model: SpeechAwareLMConfig, lora: LoRAConfig) -> dict[str, Any]:
    """Shapes and dtypes of all that a released file fills; nothing is computed."""
    require(isinstance(model.adapter, TLTRConfig), "adapter", type(model.adapter).__name__, "LTU-AS has a TLTR")
    adapter = abstract_frames(model.adapter, model.encoder.width)
    return {"params": {"adapter": adapter}, "lora": abstract_lora(model, lora)}
