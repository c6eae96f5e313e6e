"""w2v-BERT 2.0 for `parity`: inputs `samples` and `mask` [B, N]; the filter bank and every layer."""

from collections.abc import Iterable

import numpy as np

from slm_jax.encoders.w2v_bert import W2VBERTConfig
from slm_jax.workbench.comparable import Case, Comparable, noise
from slm_jax.workbench.comparable_ssl import collected


def _cases(config: W2VBERTConfig, rng: np.random.Generator, tiny: bool) -> Iterable[Case]:
    """Frames of 10 ms are left over in some rows, of which the published shape makes 50, 49 and 24 frames."""
    lengths = [16_400, 16_080, 8_000]
    counts = ", ".join(str(config.frame_count(length)) for length in lengths)
    yield Case(f"plain, {config.frame_count(16_400)} frames", noise(rng, lengths[:1]))
    yield Case("right-padded", noise(rng, lengths))
    yield Case(f"batch against utterance, {counts} frames", noise(rng, lengths), alone=True)


W2V_BERT = Comparable(cases=_cases, collect=collected, moved="mlp_out/down/bias")
