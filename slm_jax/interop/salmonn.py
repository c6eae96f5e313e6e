"""The released file of SALMONN (arXiv 2310.13289): what was trained, under the names of its own code.

`{"model": {name: tensor}, ...}` holds queries, Q-Former, map, the norms of both streams and LoRA of the language model,
and buffers that carry nothing; the frozen parts lie elsewhere. What is read goes where `SpeechAwareLM` has it:
`params/adapter`, `params/join`, `lora/lm`.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from slm_jax.adapters.window_qformer import WindowQFormerConfig
from slm_jax.assemblies.speech_aware_lm import SpeechAwareLMConfig
from slm_jax.core.errors import require
from slm_jax.interop.engine import export_params
from slm_jax.interop.family_llama import LLAMA
from slm_jax.interop.family_qformer import QFORMER
from slm_jax.interop.peft import adapter_table
from slm_jax.interop.table import Rule, Table, below, norm, rule, weights
from slm_jax.interop.trained_parts import LORA_LM, abstract_frames, abstract_lora, as_tensors, load_named
from slm_jax.interop.transforms import SAME, Dense, Reshape
from slm_jax.nn.lora import LoRAConfig

QFORMER_AT, LORA_AT = "speech_Qformer.bert.", "llama_model.base_model.model."
ADAPTER, JOIN = "params/adapter", "params/join"
BUFFERS = (r"speech_Qformer\.bert\.embeddings\.position_ids", r"llama_model\..*\.rotary_emb\.inv_freq")


def load_salmonn(path: str | Path, model: SpeechAwareLMConfig, lora: LoRAConfig) -> dict[str, Any]:
    """The trained variables in a released file, float32 NumPy arrays: `params/adapter`, `params/join`, `lora`.

    Raises `UserError` for a model of another form, `MappingError` listing every name that has no place, every place
    left empty, every wrong shape.
    """
    return load_named(path, table(model, lora), abstract_trained(model, lora), "SALMONN")


def save_salmonn(path: str | Path, variables: Any, model: SpeechAwareLMConfig, lora: LoRAConfig) -> Path:
    """Write the trained variables as the original code loads them; needs PyTorch."""
    import torch

    torch.save({"model": as_tensors(named_arrays(variables, model, lora))}, path)
    return Path(path)


def named_arrays(variables: Any, model: SpeechAwareLMConfig, lora: LoRAConfig) -> Iterable[tuple[str, np.ndarray]]:
    """The trained variables under their released names."""
    params = {name: variables["params"][name] for name in ("adapter", "join")}
    return export_params(table(model, lora), {"params": params, "lora": variables["lora"]})


def table(model: SpeechAwareLMConfig, lora: LoRAConfig) -> Table:
    """The names of a released file."""
    qformer = _adapter(model).qformer
    return Table(
        rules=(
            rule("speech_query_tokens", f"{ADAPTER}/queries", Reshape((1, -1, qformer.width))),
            *below(QFORMER.table(qformer, "salmonn").rules, QFORMER_AT, f"{ADAPTER}/qformer/"),
            *weights("speech_llama_proj", f"{ADAPTER}/map", Dense(), SAME),
            *norm("ln_speech", f"{JOIN}/first_norm"),
            *norm("ln_audio", f"{JOIN}/second_norm"),
            *(_live(each) for each in adapter_table(LLAMA.table(model.lm, "transformers"), lora.name).rules),
        ),
        ignored=BUFFERS,
    )


def abstract_trained(model: SpeechAwareLMConfig, lora: LoRAConfig) -> dict[str, Any]:
    """Shapes and dtypes of all that a released file fills; nothing is computed."""
    adapter = _adapter(model)
    require(model.join is not None, "join", model.join, "SALMONN joins two streams")
    trained = {
        "adapter": abstract_frames(adapter, adapter.qformer.context_width),
        "join": abstract_frames(model.join, *(encoder.width for encoder in model.encoders)),
    }
    return {"params": trained, "lora": abstract_lora(model, lora)}


def _adapter(model: SpeechAwareLMConfig) -> WindowQFormerConfig:
    adapter = model.adapter
    known = isinstance(adapter, WindowQFormerConfig) and not adapter.norm
    require(known, "adapter", type(adapter).__name__, "SALMONN has a window Q-Former without a norm in front")
    assert isinstance(adapter, WindowQFormerConfig)  # for the type checker
    return adapter


def _live(each: Rule) -> Rule:
    """A rule of an adapter file under the names of a model that is in use, which say the adapter's name too."""
    names = (name.replace(".weight", ".default.weight") for name in each.sources)
    return below((Rule(tuple(names), each.targets, each.transform),), LORA_AT, LORA_LM)[0]
