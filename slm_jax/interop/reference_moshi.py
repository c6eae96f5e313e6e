"""`MoshiForConditionalGeneration` of `transformers` as a reference: its two transformers, without the codec."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from slm_jax.interop.reference import Arrays, Reference, config_json, draw_weights, recorded, reference_of

MOSHIS = (("moshi", "tiny"),)
DEPTH = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 3, "ffn_dim": 40}
SHAPE: dict[str, Any] = {
    "vocab_size": 31,
    "audio_vocab_size": 17,
    "num_codebooks": 3,
    "hidden_size": 36,
    "num_hidden_layers": 3,
    "num_attention_heads": 3,
    "num_key_value_heads": 3,
    "ffn_dim": 52,
}
CODEC = {"model_type": "mimi", "codebook_size": 16, "num_hidden_layers": 1, "hidden_size": 16, "num_filters": 2}
CODEC |= {"intermediate_size": 16, "num_attention_heads": 2, "head_dim": 8, "num_key_value_heads": 2}
CODEC |= {"upsample_groups": 16, "num_quantizers": 8, "codebook_dim": 8, "vector_quantization_hidden_dimension": 8}
"""A codec that is there because the class wants one."""


def tiny_moshi(family: str, variant: str, seed: int = 0, dtype: str = "float32") -> Reference:
    """A small model of random weights."""
    import transformers

    config = transformers.MoshiConfig(**SHAPE, audio_encoder_config=dict(CODEC), depth_decoder_config=dict(DEPTH))
    model = draw_weights(transformers.MoshiForConditionalGeneration(config), seed)
    _in_full(model, dtype)
    return reference_of(family, variant, model, config_json(model), dtype, True, _activations)


def moshi_from_folder(folder: Path, family: str, hub_config: dict[str, Any], dtype: str) -> Reference:
    """The model of a folder, in full precision whatever the file holds."""
    import torch
    import transformers

    kind = transformers.MoshiForConditionalGeneration
    model = kind.from_pretrained(folder, dtype=torch.float32, local_files_only=True)
    _in_full(model, dtype)
    return reference_of(family, folder.name, model.eval(), hub_config, dtype, False, _activations)


def _in_full(model: Any, dtype: str) -> None:
    """Norms in float64 where everything is: the class makes them float32, whatever its weights are."""
    if dtype == "float64":
        for module in model.modules():
            if type(module).__name__ == "MoshiRMSNorm":
                module.forward = lambda x, module=module: module._norm(x) * module.weight


def _activations(model: Any, inputs: Mapping[str, np.ndarray | None]) -> Arrays:
    """Every layer, the last norm, logits of text and codes `[B, S, V]`; an empty entry is the id behind the last."""
    import torch

    config, mask = model.config, inputs["mask"]
    books, empty = config.num_codebooks, [config.vocab_size, *[config.audio_vocab_size] * (2 * config.num_codebooks)]
    ids = inputs["ids"]
    assert ids is not None
    codes = torch.tensor(np.where(ids < 0, empty, ids))
    given = {"attention_mask": torch.tensor(mask.astype(np.int64))} if mask is not None else {}
    places = {f"layer_{i + 1}": f"decoder.model.layers.{i}" for i in range(config.num_hidden_layers)}
    places = {"embeddings": ">decoder.model.layers.0"} | places | {"final_norm": "decoder.model.norm"}
    told = {"user_audio_codes": codes[..., 1 + books :].mT, "moshi_audio_codes": codes[..., 1 : 1 + books].mT}
    found = recorded(model, places, lambda: model(input_ids=codes[..., 0], **told, use_cache=False, **given))
    with torch.no_grad():
        features = torch.tensor(found["final_norm"])
        found["logits_0"] = model.decoder.lm_head(features).numpy()
        following = torch.cat([codes[:, 1:], torch.tensor(empty).expand(len(codes), 1, -1)], 1)[..., :books]
        flat = following.reshape(-1, books)
        wide = features.reshape(-1, 1, features.shape[-1]).expand(-1, books, -1)
        depth = model.depth_decoder(input_ids=flat, last_hidden_state=wide, attention_mask=torch.ones_like(flat))
    by_book = depth.logits.reshape(*codes.shape[:2], books, -1).numpy()
    return found | {f"logits_{k + 1}": by_book[:, :, k] for k in range(books)}
