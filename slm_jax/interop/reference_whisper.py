"""Whisper of `transformers` as a reference."""

from collections.abc import Mapping
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

WHISPERS = (("whisper", "tiny"),)
"""(family, variant)."""

SHAPE: dict[str, Any] = {
    "vocab_size": 41,
    "d_model": 36,
    "num_mel_bins": 23,
    "max_source_positions": 50,
    "max_target_positions": 24,
    "encoder_attention_heads": 3,
    "decoder_attention_heads": 3,
    "encoder_layers": 3,
    "decoder_layers": 2,
    "encoder_ffn_dim": 50,
    "decoder_ffn_dim": 44,
    **dict.fromkeys(("bos_token_id", "eos_token_id", "pad_token_id", "decoder_start_token_id"), 0),
}
"""A window of one second; a prime vocabulary, widths that are no powers of 2."""
SAMPLES_OF_A_FRAME = 320
N_FFT, HOP = 400, 160


def tiny_whisper(family: str, variant: str, seed: int = 0, dtype: str = "float32") -> Reference:
    """A small model of random weights."""
    import transformers

    model = transformers.WhisperForConditionalGeneration(transformers.WhisperConfig(**SHAPE))
    return _reference(variant, draw_weights(model, seed), config_json(model), dtype, True)


def whisper_from_folder(folder: Path, family: str, hub_config: dict[str, Any], dtype: str) -> Reference:
    """The model of a folder, in full precision whatever the file holds."""
    import torch
    import transformers

    kind = transformers.WhisperForConditionalGeneration
    model = kind.from_pretrained(folder, dtype=torch.float32, local_files_only=True)
    return _reference(folder.name, model.eval(), hub_config, dtype, False)


def _reference(variant: str, model: Any, hub_config: dict, dtype: str, tiny: bool) -> Reference:
    return reference_of("whisper", variant, model, hub_config, dtype, tiny, _activations)


def log_mels(samples: np.ndarray, config: Any) -> Any:
    """[B, N] -> [B, M, frames]: what the feature extractor makes of a window, in float64.

    In float32 PyTorch is off by 1e-4 where a filter hears next to nothing, which released weights enlarge twentyfold.
    """
    import torch
    from transformers import WhisperFeatureExtractor

    window = config.max_source_positions * SAMPLES_OF_A_FRAME
    filled = torch.from_numpy(np.pad(samples, ((0, 0), (0, window - samples.shape[1])))).double()
    filters = torch.from_numpy(WhisperFeatureExtractor(feature_size=config.num_mel_bins).mel_filters)
    hann = torch.hann_window(N_FFT, dtype=torch.float64)
    spectra = torch.stft(filled, N_FFT, HOP, window=hann, return_complex=True)
    levels = torch.clamp(filters.T.double() @ spectra[..., :-1].abs() ** 2, min=1e-10).log10()
    return (torch.maximum(levels, levels.amax((1, 2), keepdim=True) - 8.0) + 4.0) / 4.0


def _activations(model: Any, inputs: Mapping[str, np.ndarray | None]) -> Arrays:
    """Positions count real tokens, as `generate` of the reference makes them."""
    import torch

    ids, mask = inputs["ids"], inputs["ids_mask"]
    given = {"decoder_input_ids": torch.tensor(ids), "use_cache": False}
    if mask is not None:
        given["decoder_attention_mask"] = torch.tensor(mask.astype(np.int64))
        given["decoder_position_ids"] = torch.tensor(np.maximum(mask.cumsum(1) - 1, 0))
    mels = log_mels(np.asarray(inputs["samples"]), model.config).to(model.dtype)
    found = recorded(model, _places(model), lambda: model(mels, **given))
    gelu = torch.nn.functional.gelu(torch.from_numpy(found["features"]))
    return found | {"features": gelu.transpose(1, 2).numpy()}


def _places(model: Any) -> dict[str, str]:
    encoder, decoder = "model.encoder", "model.decoder"
    places = {"features": f"{encoder}.conv2", "positions": f">{encoder}.layers.0"}
    places |= {f"encoder_layer_{i + 1}": f"{encoder}.layers.{i}" for i in range(model.config.encoder_layers)}
    places |= {"encoder_norm": f"{encoder}.layer_norm", "embeddings": f">{decoder}.layers.0"}
    places |= {f"decoder_layer_{i + 1}": f"{decoder}.layers.{i}" for i in range(model.config.decoder_layers)}
    return places | {"decoder_norm": f"{decoder}.layer_norm", "logits": "proj_out"}
