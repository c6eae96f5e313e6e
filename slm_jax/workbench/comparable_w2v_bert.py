"""w2v-BERT 2.0 for `parity`: inputs `samples` and `mask` [B, N]; the filter bank and every layer."""

from collections.abc import Iterable, Mapping
from typing import Any

import jax
import numpy as np

from slm_jax.encoders.w2v_bert import W2VBERT, W2VBERTConfig
from slm_jax.workbench.comparable import Case, Comparable, Found, noise


def _cases(config: W2VBERTConfig, rng: np.random.Generator, tiny: bool) -> Iterable[Case]:
    """Frames of 10 ms are left over in some rows, of which the published shape makes 50, 49 and 24 frames."""
    lengths = [16_400, 16_080, 8_000]
    counts = ", ".join(str(config.frame_count(length)) for length in lengths)
    yield Case(f"plain, {config.frame_count(16_400)} frames", noise(rng, lengths[:1]))
    yield Case("right-padded", noise(rng, lengths))
    yield Case(f"batch against utterance, {counts} frames", noise(rng, lengths), alone=True)


def _collect(model: W2VBERT, params: Any, inputs: Mapping[str, jax.Array]) -> Found:
    out, inside = model.apply(
        {"params": params},
        inputs["samples"],
        inputs["mask"],
        collect=True,
        capture_intermediates=lambda module, method: method == "__call__" and module.name == "feature_projection",
        mutable=["intermediates"],
    )
    (projection,) = jax.tree.leaves(inside)
    assert out.hidden is not None  # for the type checker: `collect` fills it
    found = {"features": out.features, "projection": projection, "positions": out.hidden[0]}
    found |= {f"layer_{i}": out.hidden[i] for i in range(1, len(out.hidden))}
    return {name: (values, out.mask) for name, values in found.items()}


W2V_BERT = Comparable(cases=_cases, collect=_collect, moved="mlp_out/down/bias")
