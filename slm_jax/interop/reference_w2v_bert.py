"""w2v-BERT 2.0 of `transformers` as a reference."""

import json
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

W2V_BERTS = (("wav2vec2-bert", "tiny"),)
"""(family, variant)."""

SHAPE: dict[str, Any] = {
    "hidden_size": 36,
    "num_hidden_layers": 3,
    "num_attention_heads": 3,
    "intermediate_size": 50,
    "conv_depthwise_kernel_size": 7,
    "left_max_position_embeddings": 9,
    "right_max_position_embeddings": 3,
}
"""Clips reach beyond the distances that are told apart, on either side; widths that are no powers of 2."""


def tiny_w2v_bert(family: str, variant: str, seed: int = 0, dtype: str = "float32") -> Reference:
    """A small model of random weights."""
    import transformers

    model = transformers.Wav2Vec2BertModel(transformers.Wav2Vec2BertConfig(**SHAPE))
    return _reference(variant, draw_weights(model, seed), config_json(model), dtype, True)


def w2v_bert_from_folder(folder: Path, family: str, hub_config: dict[str, Any], dtype: str) -> Reference:
    """The encoder of a folder, without any head, in full precision whatever the file holds."""
    import torch
    import transformers

    kind = transformers.Wav2Vec2BertModel
    model = kind.from_pretrained(folder, dtype=torch.float32, local_files_only=True)
    told = folder / "preprocessor_config.json"
    given = json.loads(told.read_text(encoding="utf-8")) if told.is_file() else {}
    sizes = {name: given[name] for name in ("feature_size", "num_mel_bins", "stride") if name in given}
    return _reference(folder.name, model.eval(), hub_config, dtype, False, sizes)


def features_of(samples: np.ndarray, mask: np.ndarray | None, sizes: Mapping[str, int]) -> tuple[Any, Any]:
    """[B, T, C] and which frames are real: what the reference's feature extractor makes of each row, in float64.

    The extractor itself keeps spectra and features in float32.
    """
    from transformers import SeamlessM4TFeatureExtractor

    extractor = SeamlessM4TFeatureExtractor(**sizes)
    lengths = [samples.shape[1]] * len(samples) if mask is None else mask.sum(1)
    rows = [_fbank(row[:length], extractor) for row, length in zip(samples, lengths, strict=True)]
    rows = [(row - row.mean(0)) / np.sqrt(row.var(0, ddof=1) + 1e-7) for row in rows]
    stacked = [row[: len(row) // extractor.stride * extractor.stride] for row in rows]
    stacked = [row.reshape(-1, row.shape[1] * extractor.stride) for row in stacked]
    real = np.arange(max(map(len, stacked))) < np.array([len(row) for row in stacked])[:, None]
    features = np.ones((*real.shape, stacked[0].shape[1]))
    features[real] = np.concatenate(stacked)
    return features, real


def _fbank(samples: np.ndarray, extractor: Any) -> np.ndarray:
    frames = np.lib.stride_tricks.sliding_window_view(samples.astype(np.float64) * 2**15, 400)[::160]
    frames = frames - frames.mean(1, keepdims=True)
    frames = frames - 0.97 * np.concatenate([frames[:, :1], frames[:, :-1]], axis=1)
    powers = np.abs(np.fft.rfft(frames * extractor.window, 512)) ** 2
    return np.log(np.maximum(powers @ extractor.mel_filters, np.finfo(np.float32).eps))


def _reference(
    variant: str, model: Any, hub_config: dict, dtype: str, tiny: bool, sizes: Mapping[str, int] | None = None
) -> Reference:
    def activations(model: Any, inputs: Mapping[str, np.ndarray | None]) -> Arrays:
        return _activations(model, inputs, sizes or {})

    return reference_of("wav2vec2-bert", variant, model, hub_config, dtype, tiny, activations)


def _activations(model: Any, inputs: Mapping[str, np.ndarray | None], sizes: Mapping[str, int]) -> Arrays:
    import torch

    samples = inputs["samples"]
    assert samples is not None  # for the type checker: only masks may be absent
    features, real = features_of(samples, inputs["mask"], sizes)
    given = torch.from_numpy(features).to(model.dtype), torch.from_numpy(real.astype(np.int64))
    found = recorded(model, _places(model), lambda: model(given[0], attention_mask=given[1]))
    return {"features": features} | found


def _places(model: Any) -> dict[str, str]:
    places = {"projection": "feature_projection", "positions": ">encoder.layers.0"}
    return places | {f"layer_{i + 1}": f"encoder.layers.{i}" for i in range(model.config.num_hidden_layers)}
