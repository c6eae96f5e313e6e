"""Decoders of several streams for `parity`: inputs `ids` [B, S, K1], `mask` [B, S], `context` [B, C, D] and its mask.

Every layer, the final norm, the logits of each stream.
"""

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

import jax
import numpy as np

from slm_jax.core.types import EMPTY, Frames
from slm_jax.sequence_models.multi_stream import MultiStream, MultiStreamConfig
from slm_jax.sequence_models.temporal_depth import TemporalDepth, TemporalDepthConfig
from slm_jax.workbench.comparable import Case, Comparable, Found


def _cases(config: MultiStreamConfig, rng: np.random.Generator, tiny: bool) -> Iterable[Case]:
    lengths, heard = np.array([[17], [9], [2]]), np.array([[3], [7], [5]])
    ids = rng.integers(0, config.streams, (3, 17, len(config.streams)))
    if config.blanks:  # others have no vector for an empty entry
        ids = np.where(rng.random(ids.shape) < 0.2, EMPTY, ids)
    context = rng.standard_normal((3, 7, config.body.context_width or 1)).astype(np.float32)
    inputs: dict[str, np.ndarray] = {"ids": ids, "context": context, "context_mask": np.arange(7) < heard}
    right = np.arange(17) < lengths
    yield Case("plain", {**inputs, "mask": np.ones_like(right)})
    yield Case("right-padded", {**inputs, "mask": right})
    yield Case("batch against utterance", {**inputs, "mask": right}, alone=True)


def _collect(model: MultiStream, params: Any, inputs: Mapping[str, jax.Array]) -> Found:
    def pieces(model: MultiStream, ids: jax.Array, mask: jax.Array | None, context: Frames | None) -> tuple[Any, ...]:
        features = model.hidden(ids, mask=mask, context=context)
        return model.hidden_states(ids, mask=mask, context=context), features, model.head(features)

    config, mask = model.config, inputs["mask"]
    context = None
    if config.body.context_width is not None:
        real = inputs["context_mask"]
        real = np.ones(inputs["context"].shape[:2], bool) if real is None else real
        context = Frames(inputs["context"], real)
    hidden, features, logits = model.apply({"params": params}, inputs["ids"], mask, context, method=pieces)
    found = {"embeddings": hidden[0]} | {f"layer_{i}": hidden[i] for i in range(1, len(hidden))}
    found |= {"final_norm": features}
    found |= {f"logits_{k}": logits[..., k, :size] for k, size in enumerate(config.streams)}
    return {name: (values, mask) for name, values in found.items()}


def _cases_of_depth(config: TemporalDepthConfig, rng: np.random.Generator, tiny: bool) -> Iterable[Case]:
    """The same without anything that is heard beside them; behind the end of a row, which the last step is given to
    write, stands nothing."""
    for case in _cases(config.temporal, rng, tiny):
        ids, mask = case.inputs["ids"], case.inputs["mask"]
        yield dataclasses.replace(case, inputs={"ids": np.where(mask[..., None], ids, EMPTY), "mask": mask})


def _collect_of_depth(model: TemporalDepth, params: Any, inputs: Mapping[str, jax.Array]) -> Found:
    """Layers and norm of the larger model; logits of every stream that is written, given the step's earlier ones."""

    def pieces(model: TemporalDepth, ids: jax.Array, mask: jax.Array | None) -> tuple[Any, ...]:
        temporal = model.temporal
        return temporal.hidden_states(ids, mask=mask), temporal.hidden(ids, mask=mask), model(ids, mask=mask)

    config, mask = model.config, inputs["mask"]
    hidden, features, logits = model.apply({"params": params}, inputs["ids"], mask, method=pieces)
    found = {"embeddings": hidden[0]} | {f"layer_{i}": hidden[i] for i in range(1, len(hidden))}
    found |= {"final_norm": features}
    found |= {f"logits_{k}": logits[..., k, :size] for k, size in enumerate(config.streams[: config.count])}
    return {name: (values, mask) for name, values in found.items()}


TEMPORAL_DEPTH = Comparable(cases=_cases_of_depth, collect=_collect_of_depth, moved="body/blocks/layers/mlp_norm/scale")
MULTI_STREAM = Comparable(cases=_cases, collect=_collect, moved="mlp_norm/scale")
