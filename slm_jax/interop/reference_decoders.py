"""GPT-2, OPT, LLaMA, Qwen2, Mistral and a stage of Bark of `transformers` as references."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from slm_jax.interop.reference import (
    Arrays,
    Reference,
    config_json,
    draw_weights,
    recorded,
    reference_of,
)

DECODERS = (
    ("gpt2", "tiny"),
    ("opt", "125m"),
    ("opt", "350m"),
    ("llama", "grouped"),
    ("llama", "rope-llama3"),
    ("llama", "one-layer"),
    ("qwen2", "tiny"),
    ("mistral", "window"),
    ("bark", "coarse"),
    ("bark", "without-biases"),
)
"""(family, variant). Odd sizes on purpose: a prime vocabulary, shared keys, widths that are no powers of 2."""

VOCABULARY, POSITIONS = 41, 24
LLAMA3_ROPE = {
    "rope_type": "llama3",
    "rope_theta": 100.0,
    "factor": 8.0,
    "original_max_position_embeddings": 16,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
}
PARTS = {
    "gpt2": ("transformer.h", "transformer.ln_f", "lm_head"),
    "opt": ("model.decoder.layers", "model.decoder.final_layer_norm", "lm_head"),
    "llama": ("model.layers", "model.norm", "lm_head"),
    "qwen2": ("model.layers", "model.norm", "lm_head"),
    "mistral": ("model.layers", "model.norm", "lm_head"),
    "bark": ("layers", "layernorm_final", "lm_head"),
}
"""Paths of the layers, the last norm and the head."""
CLASSES = {"GPT2": "GPT2LMHeadModel", "BarkCoarse": "BarkCoarseModel"}
"""Of which kinds the class is not called as those of the others."""


def tiny_decoder(family: str, variant: str, seed: int = 0, dtype: str = "float32") -> Reference:
    """A small model of random weights."""
    import transformers

    kind, settings = _settings(family, variant)
    config = getattr(transformers, f"{kind}Config")(**settings)
    model = getattr(transformers, CLASSES.get(kind, f"{kind}ForCausalLM"))(config)
    return _reference(family, variant, draw_weights(model, seed), config_json(model), dtype, True)


def decoder_from_folder(folder: Path, family: str, hub_config: dict[str, Any], dtype: str) -> Reference:
    """The model of a folder, in full precision whatever the file holds."""
    import torch
    import transformers

    kind = transformers.BarkCoarseModel if family == "bark" else transformers.AutoModelForCausalLM
    model = kind.from_pretrained(folder, dtype=torch.float32, local_files_only=True)
    return _reference(family, folder.name, model.eval(), hub_config, dtype, False)


def _reference(family: str, variant: str, model: Any, hub_config: dict, dtype: str, tiny: bool) -> Reference:
    return reference_of(family, variant, model, hub_config, dtype, tiny, partial(_activations, family))


def _activations(family: str, model: Any, inputs: Mapping[str, np.ndarray | None]) -> Arrays:
    """Positions count real tokens, as `generate` of the reference makes them."""
    import torch

    ids, mask = inputs["ids"], inputs["mask"]
    given = {"input_ids": torch.tensor(ids), "use_cache": False}
    if mask is not None:
        given["attention_mask"] = torch.tensor(mask.astype(np.int64))
        if family != "opt":  # OPT makes them of the mask itself
            given["position_ids"] = torch.tensor(np.maximum(mask.cumsum(1) - 1, 0))
    return recorded(model, _places(family, model), lambda: model(**given))


def _places(family: str, model: Any) -> dict[str, str]:
    layers, norm, head = PARTS[family]
    count = len(model.get_submodule(layers))
    places = {"embeddings": f">{layers}.0"} | {f"layer_{i + 1}": f"{layers}.{i}" for i in range(count)}
    if family == "opt" and model.model.decoder.project_out is not None:
        places["project_out"] = "model.decoder.project_out"
    elif family != "opt" or model.model.decoder.final_layer_norm is not None:
        places["final_norm"] = norm
    return places | {"logits": head}


def _settings(family: str, variant: str) -> tuple[str, dict[str, Any]]:
    """The prefix of the classes and the fields of the config."""
    if family == "gpt2":
        shape = {"n_positions": POSITIONS, "n_embd": 36, "n_layer": 3, "n_head": 3, "n_inner": 50}
        return "GPT2", {"vocab_size": VOCABULARY, "bos_token_id": 0, "eos_token_id": 0, **shape}
    if family == "bark":
        sizes = {"input_vocab_size": VOCABULARY, "output_vocab_size": VOCABULARY, "block_size": POSITIONS}
        shape = {"hidden_size": 36, "num_layers": 3, "num_heads": 3, "bias": variant == "coarse"}
        return "BarkCoarse", {**sizes, **shape}
    shape = {"vocab_size": VOCABULARY, "hidden_size": 36, "num_hidden_layers": 3, "max_position_embeddings": POSITIONS}
    if family == "opt":
        odd = variant == "350m"
        shape |= {"num_attention_heads": 3, "ffn_dim": 50, "do_layer_norm_before": not odd}
        return "OPT", shape | {"word_embed_proj_dim": 20 if odd else 36}
    shape |= {"num_attention_heads": 6, "num_key_value_heads": 2, "intermediate_size": 50}
    if family == "qwen2":
        rope = {"rope_type": "default", "rope_theta": 1e6}
        return "Qwen2", shape | {"rope_parameters": rope, "tie_word_embeddings": True}
    if family == "mistral":
        return "Mistral", shape | {"sliding_window": 5}
    changes: dict[str, dict[str, Any]] = {
        "grouped": {},
        "rope-llama3": {"rope_parameters": LLAMA3_ROPE, "num_key_value_heads": 1},
        "one-layer": {"num_hidden_layers": 1, "num_key_value_heads": 6, "head_dim": 10, "tie_word_embeddings": True},
    }
    return "Llama", shape | changes[variant]
