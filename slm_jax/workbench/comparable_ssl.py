"""wav2vec 2.0, HuBERT and WavLM for `parity`: inputs `samples` and `mask` [B, N]; the front end and every layer."""

from collections.abc import Iterable, Mapping
from typing import Any

import jax
import numpy as np

from slm_jax.encoders.ssl import SSLEncoderConfig
from slm_jax.workbench.comparable import Case, Comparable, Found, noise


def _cases(config: SSLEncoderConfig, rng: np.random.Generator, tiny: bool) -> Iterable[Case]:
    """16,000, 16,080 and 160,000 samples are 49, 50 and 499 frames in the published shapes."""
    frames = config.frame_count
    yield Case(f"plain, {frames(16_080)} frames", noise(rng, [16_080]))
    lengths = [160_000, 16_080, 16_000]
    counts = ", ".join(str(frames(length)) for length in lengths)
    yield Case(f"batch against utterance, {counts} frames", noise(rng, lengths), alone=True)
    over_padding = {"reference_padding": True}  # group norm as the PyTorch models have it
    yield Case("reference_padding", noise(rng, [16_080, 9_777]), changes=over_padding)


def collected(model: Any, params: Any, inputs: Mapping[str, jax.Array]) -> Found:
    """Features, what is projected of them, and every layer of an encoder of speech."""
    out, inside = model.apply(
        {"params": params},
        inputs["samples"],
        inputs["mask"],
        collect=True,
        capture_intermediates=lambda module, method: method == "__call__" and module.name == "feature_projection",
        mutable=["intermediates"],
    )
    (projection,) = jax.tree.leaves(inside)
    found = {"features": out.features, "projection": projection, "positions": out.hidden[0]}
    found |= {f"layer_{i}": out.hidden[i] for i in range(1, len(out.hidden))}
    found |= {"final_norm": out.values} if getattr(model.config, "pre_norm", False) else {}
    return {name: (values, out.mask) for name, values in found.items()}


SSL_ENCODER = Comparable(cases=_cases, collect=collected, moved="mlp/down/bias")
