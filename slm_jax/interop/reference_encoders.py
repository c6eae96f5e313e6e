"""wav2vec 2.0, HuBERT and WavLM of `transformers` as references."""

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
    settle,
)

ENCODERS = tuple((family, variant) for family in ("wav2vec2", "hubert", "wavlm") for variant in ("base", "large"))
"""(family, variant): group norm and norms after each half of a layer, or layer norms and norms before it."""

CLASSES = {"wav2vec2": "Wav2Vec2", "hubert": "Hubert", "wavlm": "WavLM"}
SHAPE: dict[str, Any] = {
    "hidden_size": 36,
    "num_hidden_layers": 3,
    "num_attention_heads": 3,
    "intermediate_size": 50,
    "conv_dim": [10] * 7,
    "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 4,
}
"""The published kernels and strides, so that 16,000 samples are 49 frames; widths that are no powers of 2."""


def tiny_encoder(family: str, variant: str, seed: int = 0, dtype: str = "float32") -> Reference:
    """A small model of random weights."""
    import torch
    import transformers

    settings = SHAPE | ({"num_buckets": 32, "max_bucket_distance": 40} if family == "wavlm" else {})
    if variant == "large":
        settings |= {"do_stable_layer_norm": True, "feat_extract_norm": "layer", "conv_bias": family != "wavlm"}
    config = getattr(transformers, f"{CLASSES[family]}Config")(**settings)
    model = getattr(transformers, f"{CLASSES[family]}Model")(config)
    draw_weights(model, seed)
    noise = torch.randn(1, 1_600, generator=torch.Generator().manual_seed(seed))
    convolutions = [f"conv_layers.{i}.conv" for i in range(len(SHAPE["conv_dim"]))]
    settle(model.feature_extractor, convolutions, lambda: model.feature_extractor(noise))
    return _reference(family, variant, model, config_json(model), dtype, True)


def encoder_from_folder(folder: Path, family: str, hub_config: dict[str, Any], dtype: str) -> Reference:
    """The encoder of a folder, without any head, in full precision whatever the file holds."""
    import torch
    import transformers

    kind = getattr(transformers, f"{CLASSES[family]}Model")
    model = kind.from_pretrained(folder, dtype=torch.float32, local_files_only=True)
    told = folder / "preprocessor_config.json"
    normalise = told.is_file() and transformers.Wav2Vec2FeatureExtractor.from_pretrained(folder).do_normalize
    return _reference(family, folder.name, model.eval(), hub_config, dtype, False, normalise)


def _reference(
    family: str, variant: str, model: Any, hub_config: dict, dtype: str, tiny: bool, normalise: bool = False
) -> Reference:
    def activations(model: Any, inputs: Mapping[str, np.ndarray | None]) -> Arrays:
        samples = _normalised(inputs["samples"], inputs["mask"]) if normalise else inputs["samples"]
        return _activations(model, {**inputs, "samples": samples})

    return reference_of(family, variant, model, hub_config, dtype, tiny, activations)


def _normalised(samples: Any, mask: Any) -> np.ndarray:
    """Each row with zero mean and unit variance, by the reference's own feature extractor."""
    from transformers import Wav2Vec2FeatureExtractor

    return np.stack(Wav2Vec2FeatureExtractor.zero_mean_unit_var_norm(list(samples), mask, 0.0))


def _activations(model: Any, inputs: Mapping[str, np.ndarray | None]) -> Arrays:
    import torch

    samples, mask = torch.from_numpy(inputs["samples"]).to(model.dtype), inputs["mask"]
    given = {} if mask is None else {"attention_mask": torch.from_numpy(mask.astype(np.int64))}
    found = recorded(model, _places(model), lambda: model(samples, **given))
    return found | {"features": found["features"].transpose(0, 2, 1)}


def _places(model: Any) -> dict[str, str]:
    count = len(model.encoder.layers)
    places = {"features": "feature_extractor", "projection": "feature_projection", "positions": ">encoder.layers.0"}
    places |= {f"layer_{i + 1}": f"encoder.layers.{i}" for i in range(count)}
    return places | ({"final_norm": "encoder.layer_norm"} if model.config.do_stable_layer_norm else {})
