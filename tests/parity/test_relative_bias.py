"""Buckets and biases against T5's attention in transformers, for both directions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from slm_jax.nn.relative_bias import RelativeBias, RelativeBiasConfig, buckets_of

torch = pytest.importorskip("torch")
t5 = pytest.importorskip("transformers.models.t5.modeling_t5")


@pytest.mark.parametrize("bidirectional", [True, False])
@pytest.mark.parametrize("buckets, distance", [(32, 128), (320, 1280), (8, 20)])
def test_buckets_equal_the_reference(buckets, distance, bidirectional):
    offsets = np.arange(-2500, 2501)
    ours = buckets_of(offsets, RelativeBiasConfig(buckets=buckets, max_distance=distance, bidirectional=bidirectional))
    theirs = t5.T5Attention._relative_position_bucket(torch.from_numpy(offsets), bidirectional, buckets, distance)
    np.testing.assert_array_equal(ours, theirs.numpy())
    assert len(set(ours.tolist())) == buckets - bidirectional, "two sides have one bucket that nothing falls into"


@pytest.mark.parametrize("decoder", [False, True])
def test_the_bias_equals_the_reference_whole_and_against_a_cache(decoder):
    settings = {"d_model": 16, "d_kv": 4, "num_heads": 4, "d_ff": 16, "is_decoder": decoder}
    attention = t5.T5Attention(t5.T5Config(**settings), has_relative_attention_bias=True, layer_idx=0)
    table = attention.relative_attention_bias.weight.detach().numpy()
    config = RelativeBiasConfig(buckets=32, max_distance=128, bidirectional=not decoder)
    module, params = RelativeBias(config, heads=4), {"params": {"embedding": jnp.asarray(table)}}
    with torch.no_grad():
        theirs = attention.compute_bias(40, 40)[0].numpy()
        last = attention.compute_bias(3, 40, past_seen_tokens=37)[0].numpy()
    np.testing.assert_array_equal(module.apply(params, 40), theirs)
    step = jax.jit(lambda q, k: module.apply(params, q, k, method="bias_for"))
    np.testing.assert_array_equal(step(jnp.arange(37, 40), jnp.arange(40)), last)
