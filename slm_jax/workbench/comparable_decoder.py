"""Decoders for `parity`: inputs `ids` and `mask` [B, S]; every layer, the final norm, the logits."""

from collections.abc import Iterable, Mapping
from typing import Any

import jax
import numpy as np

from slm_jax.sequence_models.decoder import Decoder
from slm_jax.sequence_models.decoder_config import DecoderConfig
from slm_jax.workbench.comparable import Case, Comparable, Found


def _cases(config: DecoderConfig, rng: np.random.Generator, tiny: bool) -> Iterable[Case]:
    steps = min(17, config.max_positions or 17)
    lengths = np.array([steps, steps // 2 + 1, 2])[:, None]
    ids, index = rng.integers(0, config.vocabulary, (3, steps)), np.arange(steps)
    right, left = index < lengths, index >= steps - lengths
    yield Case("plain", {"ids": ids, "mask": np.ones_like(right)})
    yield Case("right-padded", {"ids": ids, "mask": right})
    yield Case("left-padded", {"ids": ids, "mask": left})
    yield Case("batch against utterance", {"ids": ids, "mask": right}, alone=True)


def _collect(model: Decoder, params: Any, inputs: Mapping[str, jax.Array]) -> Found:
    def pieces(model: Decoder, ids: jax.Array, mask: jax.Array | None) -> tuple[jax.Array, jax.Array, jax.Array]:
        features = model.hidden(ids, mask=mask)
        return model.hidden_states(ids, mask=mask), features, model.head(features)

    config, ids = model.config, inputs["ids"]
    hidden, features, logits = model.apply({"params": params}, ids, inputs["mask"], method=pieces)
    found = {"embeddings": hidden[0]} | {f"layer_{i}": hidden[i] for i in range(1, len(hidden))}
    if config.table_width != config.width:
        found["project_out"] = features
    elif config.final_norm:
        found["final_norm"] = features
    return {name: (values, inputs["mask"]) for name, values in (found | {"logits": logits}).items()}


DECODER = Comparable(cases=_cases, collect=_collect, moved="mlp_norm/scale")
