"""The rules that shape a distribution, against the processors of transformers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from slm_jax.generation.sampling import SamplingConfig, shape_logits

B, V = 4, 50
LOGITS = 2.0 * np.random.default_rng(0).normal(size=(B, V)).astype(np.float32)
IDS = np.random.default_rng(1).integers(0, V, (B, 12))


def shaped(config: SamplingConfig) -> np.ndarray:
    seen = np.zeros((B, V), bool)
    seen[np.arange(B)[:, None], IDS] = True
    return np.asarray(jax.jit(lambda x, s: shape_logits(x, s, jnp.int32(0), config))(LOGITS, seen))


RULES = {
    "temperature": {"temperature": 0.7},
    "top_k": {"top_k": 5},
    "top_p": {"top_p": 0.8},
    "top_p_tiny": {"top_p": 1e-4},
    "penalty": {"repetition_penalty": 1.3},
    "all": {"temperature": 0.7, "top_k": 20, "top_p": 0.9, "repetition_penalty": 1.2},
}


@pytest.mark.parametrize("rules", RULES.values(), ids=RULES.keys())
def test_every_rule_equals_the_processor_of_transformers(rules):
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    from transformers.generation import logits_process

    assert transformers
    chain = []  # the order in which `generate` applies them
    if "repetition_penalty" in rules:
        chain.append(logits_process.RepetitionPenaltyLogitsProcessor(rules["repetition_penalty"]))
    if "temperature" in rules:
        chain.append(logits_process.TemperatureLogitsWarper(rules["temperature"]))
    if "top_k" in rules:
        chain.append(logits_process.TopKLogitsWarper(rules["top_k"]))
    if "top_p" in rules:
        chain.append(logits_process.TopPLogitsWarper(rules["top_p"]))
    wanted = torch.tensor(LOGITS)
    for rule in chain:
        wanted = rule(torch.tensor(IDS), wanted)
    ours = shaped(SamplingConfig(**rules))
    np.testing.assert_array_equal(np.isfinite(ours), np.isfinite(wanted.numpy()))
    np.testing.assert_allclose(ours, wanted.numpy(), rtol=1e-6)
