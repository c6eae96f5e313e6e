"""`MusicgenForCausalLM` of `transformers` as a reference."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from slm_jax.core.types import EMPTY
from slm_jax.interop.reference import Arrays, Reference, config_json, draw_weights, recorded, reference_of

MUSICGENS = (("musicgen_decoder", "tiny"),)
SHAPE: dict[str, Any] = {
    "vocab_size": 41,
    "num_codebooks": 3,
    "hidden_size": 36,
    "num_hidden_layers": 3,
    "num_attention_heads": 3,
    "ffn_dim": 50,
    "pad_token_id": 41,
    "bos_token_id": 41,
}


def tiny_musicgen(family: str, variant: str, seed: int = 0, dtype: str = "float32") -> Reference:
    """A small model of random weights."""
    import transformers

    model = transformers.MusicgenForCausalLM(transformers.MusicgenDecoderConfig(**SHAPE))
    _in_full(model, dtype)
    return reference_of(family, variant, draw_weights(model, seed), config_json(model), dtype, True, _activations)


def musicgen_from_folder(folder: Path, family: str, hub_config: dict[str, Any], dtype: str) -> Reference:
    """The model of a folder, in full precision whatever the file holds."""
    import torch
    import transformers

    model = transformers.MusicgenForCausalLM.from_pretrained(folder, dtype=torch.float32, local_files_only=True)
    _in_full(model, dtype)
    return reference_of(family, folder.name, model.eval(), hub_config, dtype, False, _activations)


def _in_full(model: Any, dtype: str) -> None:
    """Sinusoids in float64 where everything is: the class rounds them to float32, whatever its weights are."""
    import torch

    if dtype == "float64":
        table = model.model.decoder.embed_positions
        half, places = table.embedding_dim // 2, np.arange(table.num_positions)[:, None]
        angles = places * 10_000.0 ** (-np.arange(half) / (half - 1))
        exact = torch.tensor(np.concatenate([np.cos(angles), np.sin(angles)], 1))
        table.weights = torch.nn.Buffer(exact, persistent=False)


def _activations(model: Any, inputs: Mapping[str, np.ndarray | None]) -> Arrays:
    """Every layer, the last norm, logits `[B, S, K, V]`; an empty entry is the padding id there."""
    import torch

    ids, places = inputs["ids"], {f"layer_{i + 1}": f"model.decoder.layers.{i}" for i in range(_layers(model))}
    codes = torch.tensor(np.where(ids == EMPTY, model.config.vocab_size, ids)).permute(0, 2, 1)
    context = torch.tensor(inputs["context"]).to(next(model.parameters()).dtype)
    given = {"input_ids": codes.reshape(-1, codes.shape[-1]), "use_cache": False, "encoder_hidden_states": context}
    for name, mask in (("attention_mask", inputs["mask"]), ("encoder_attention_mask", inputs["context_mask"])):
        if mask is not None:
            given[name] = torch.tensor(mask.astype(np.int64))
    places |= {"final_norm": "model.decoder.layer_norm"} | {
        f"logits_{k}": f"lm_heads.{k}" for k in range(codes.shape[1])
    }
    return recorded(model, {"embeddings": ">model.decoder.layers.0"} | places, lambda: model(**given))


def _layers(model: Any) -> int:
    return len(model.model.decoder.layers)
