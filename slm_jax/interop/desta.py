"""The released connectors of DeSTA2 (arXiv 2409.20007) and DeSTA2.5-Audio (arXiv 2507.02768): what was trained.

DeSTA2       `qformer_connector.pth`, the connector alone
DeSTA2.5     `model.safetensors`, the connector below `perception.connector.` and, where there is any, LoRA of the
             language model; checkpoints of its trainer have `model.` in front of all names

Whisper and the language model lie elsewhere. What is read goes where `SpeechAwareLM` has it: `params/adapter`,
`lora/lm`.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax.core import meta

from slm_jax.adapters.layerwise_qformer import LayerwiseQFormerConfig
from slm_jax.assemblies.speech_aware_lm import SpeechAwareLMConfig
from slm_jax.core.errors import require
from slm_jax.core.types import Frames
from slm_jax.interop.engine import MappingError, export_params, import_params, resolve
from slm_jax.interop.family_llama import LLAMA
from slm_jax.interop.peft import abstract_lora, adapter_table, live
from slm_jax.interop.readers import open_weights
from slm_jax.interop.safetensors import write_safetensors
from slm_jax.interop.table import Rule, Table, below, norm, rule, weights
from slm_jax.interop.transforms import FLAT, SAME, Dense, Reshape
from slm_jax.nn.lora import LoRAConfig

RELEASES = {"desta2": "", "desta2.5": "perception.connector."}
"""Release -> what stands before the names of its connector."""
ADAPTER, LORA_AT, LM = "params/adapter/", "llm_model.", "lora/lm/"
AT, LAYER = "qformer.layer.{i}", "qformer/layer_{i}"


def load_desta(path: str | Path, model: SpeechAwareLMConfig, lora: LoRAConfig | None = None) -> dict[str, Any]:
    """The trained variables in a file of either release, float32 NumPy arrays: `params/adapter` and, with `lora`, that.

    Raises `UserError` for a model of another form, `MappingError` listing every name that has no place, every place
    left empty, every wrong shape.
    """
    source, targets = open_weights(Path(path)), abstract_trained(model, lora)
    newer = any("perception.connector." in name for name in source.shapes)
    try:
        plan = resolve(table(model, "desta2.5" if newer else "desta2", lora), source.shapes, targets, source.dtypes)
    except MappingError as error:
        raise MappingError(error.faults, f"{source.path} is no DeSTA connector of this shape") from None
    return import_params(plan, source.read)


def save_desta(
    path: str | Path,
    variables: Any,
    model: SpeechAwareLMConfig,
    release: str = "desta2.5",
    lora: LoRAConfig | None = None,
) -> Path:
    """Write the trained variables as the original code loads them: safetensors, or of "desta2" PyTorch's file.

    Raises `UserError` for an unknown release.
    """
    named = dict(named_arrays(variables, model, release, lora))
    if release == "desta2.5":
        write_safetensors(Path(path), {name: array.shape for name, array in named.items()}, named.items(), np.float32)
        return Path(path)
    import torch

    torch.save({name: torch.from_numpy(np.array(array)) for name, array in named.items()}, path)
    return Path(path)


def named_arrays(
    variables: Any, model: SpeechAwareLMConfig, release: str, lora: LoRAConfig | None = None
) -> Iterable[tuple[str, np.ndarray]]:
    """The trained variables under their released names."""
    kept: dict[str, Any] = {"params": {"adapter": variables["params"]["adapter"]}}
    kept |= {} if lora is None else {"lora": variables["lora"]}
    return export_params(table(model, release, lora), kept)


def table(model: SpeechAwareLMConfig, release: str, lora: LoRAConfig | None = None) -> Table:
    """The names of a released file."""
    require(release in RELEASES, "release", release, f"one of {', '.join(RELEASES)}")
    own = below(connector_rules(_adapter(model)), RELEASES[release], ADAPTER)
    adapted = () if lora is None else adapter_table(LLAMA.table(model.lm, "transformers"), lora.name).rules
    return Table(
        rules=(*own, *(live(each, LORA_AT, LM) for each in adapted)),
        renames=((r"^model\.(?=perception\.|llm_model\.)", ""),),
    )


def connector_rules(adapter: LayerwiseQFormerConfig) -> tuple[Rule, ...]:
    """The names of a connector's own weights."""
    width = adapter.qformer.width
    return (
        rule("layer_prompts.{i}", "queries", Reshape((1, -1, width))),
        rule("layer_weights", "layer_weights"),
        *_attention("attention", "attention"),
        *_attention("crossattention", "cross_attention"),
        *weights(f"{AT}.intermediate.dense", f"{LAYER}/mlp/up", Dense(), SAME),
        *weights(f"{AT}.output.dense", f"{LAYER}/mlp/down", Dense(), SAME),
        *norm(f"{AT}.output.LayerNorm", f"{LAYER}/mlp_norm"),
        *norm("proj.0", "norm"),
        *weights("proj.1", "map", Dense(), SAME),
    )


def abstract_trained(model: SpeechAwareLMConfig, lora: LoRAConfig | None = None) -> dict[str, Any]:
    """Shapes and dtypes of all that a released file fills; nothing is computed."""
    adapter = _adapter(model)
    values = jnp.zeros((1, 1, adapter.layers * adapter.qformer.context_width))
    frames = Frames(values, jnp.ones((1, 1), bool))
    trained: dict[str, Any] = {
        "params": {"adapter": jax.eval_shape(adapter.make().init, jax.random.key(0), frames)["params"]}
    }
    return meta.unbox(trained | ({} if lora is None else {"lora": abstract_lora(model.lm, lora)}))


def _attention(theirs: str, ours: str) -> tuple[Rule, ...]:
    source, target = f"{AT}.{theirs}", f"{LAYER}/{ours}"
    maps = (weights(f"{source}.self.{name}", f"{target}/{name}", Dense(), FLAT) for name in ("query", "key", "value"))
    return (
        *(one for rules in maps for one in rules),
        *weights(f"{source}.output.dense", f"{target}/out", Dense(2), SAME),
        *norm(f"{source}.output.LayerNorm", f"{target}_norm"),
    )


def _adapter(model: SpeechAwareLMConfig) -> LayerwiseQFormerConfig:
    adapter = model.adapter
    known = isinstance(adapter, LayerwiseQFormerConfig)
    require(known, "adapter", type(adapter).__name__, "DeSTA has a layer-wise Q-Former")
    assert isinstance(adapter, LayerwiseQFormerConfig)  # for the type checker
    return adapter
