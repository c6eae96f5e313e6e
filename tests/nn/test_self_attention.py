"""Attention over one sequence: the fused kernel (interpreted here) against the equation."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from slm_jax.core.errors import UserError
from slm_jax.nn import self_attention
from slm_jax.nn.attend import attend
from slm_jax.nn.positions import positions_in_segments
from slm_jax.nn.self_attention import attend_self, preferred
from slm_jax.nn.visibility import Visibility, causal_mask, first_entries, segment_mask, visible

B, T, H, G, C = 2, 150, 4, 2, 16
KEYS = jax.random.split(jax.random.key(0), 4)
Q = jax.random.normal(KEYS[0], (B, T, H, C))
K, V = (jax.random.normal(key, (B, T, G, C)) for key in KEYS[1:3])
SEGMENTS = jnp.where(jnp.arange(T) < jnp.array([[140], [90]]), jnp.arange(T) // 50 + 1, 0)
PREFIX = first_entries(jnp.array([30, 60]), positions_in_segments(SEGMENTS))
CASES = {
    "causal": Visibility(),
    "causal in segments": Visibility(SEGMENTS),
    "window": Visibility(SEGMENTS, window=20),
    "both ways": Visibility((SEGMENTS > 0).astype(jnp.int32), causal=False),
    "prefix": Visibility(SEGMENTS, prefix=PREFIX),
    "prefix, window": Visibility(prefix=first_entries(jnp.array([70, 0]), jnp.arange(T)[None]), window=20),
    "blocks": Visibility(SEGMENTS, block=24),
    "window of blocks": Visibility(block=24, window=2),
}


@pytest.mark.parametrize("name", CASES)
def test_splash_equals_the_equation_with_its_gradients(name):
    sees = CASES[name]
    real = jnp.ones((B, T), bool) if sees.segments is None else sees.segments > 0
    weight = jax.random.normal(KEYS[3], (B, T, H, C)) * real[..., None, None]

    def loss(backend, q, k, v):
        return (attend_self(q, k, v, sees, backend=backend) * weight).sum()

    both = [jax.jit(jax.value_and_grad(loss, argnums=(1, 2, 3)), static_argnums=0)(b, Q, K, V) for b in BACKENDS]
    (wanted, wanted_gradients), (value, gradients) = both
    np.testing.assert_allclose(value, wanted, rtol=1e-4, atol=1e-3)
    for gradient, other in zip(gradients, wanted_gradients, strict=True):
        np.testing.assert_allclose(gradient, other, atol=1e-5)


BACKENDS = ("xla", "splash")


def test_visibility_is_the_mask_it_stands_for():
    dense = np.asarray(visible(SEGMENTS > 0, SEGMENTS, window=7).dense(T))
    real = np.asarray(SEGMENTS > 0)
    wanted = np.asarray(causal_mask(T, 7) & segment_mask(SEGMENTS)) & real[:, None, :]
    np.testing.assert_array_equal(dense[real], wanted[real])
    part = visible(None, SEGMENTS).dense(T, first=100, queries=50)
    np.testing.assert_array_equal(part, np.asarray(visible(None, SEGMENTS).dense(T))[:, 100:])
    assert Visibility(causal=False).dense(T) is None


def test_padding_is_no_part_of_the_first_segment():
    mask, zero_based = jnp.arange(6)[None] < 4, jnp.array([[0, 0, 1, 1, 0, 0]])
    dense = np.asarray(visible(mask, zero_based).dense(6))[0]
    assert not dense[4:, :4].any() and not dense[:4, 4:].any()
    assert dense[1, 0] and not dense[2, 1]


def test_dropping_weights_needs_the_equation():
    def drop(x):
        return jnp.where(jnp.arange(x.shape[-1]) % 2 == 0, x * 2, 0.0)

    assert preferred(Q, drop) == preferred(Q) == "xla"  # there is no TPU or GPU here
    dropped = attend_self(Q, K, V, Visibility(), drop)
    np.testing.assert_allclose(dropped, attend(Q, K, V, mask=causal_mask(T), dropout=drop), atol=1e-6)
    with pytest.raises(UserError, match="backend is 'splash': drops no weights"):
        attend_self(Q, K, V, Visibility(), drop, backend="splash")


def drawn(sees, length):
    """Who sees whom, as rows of ones and zeros."""
    return np.asarray(sees.dense(length))[0].astype(int).tolist()


def test_a_prefix_sees_itself_both_ways_and_what_follows_it_is_causal():
    prefix = first_entries(jnp.array([3]), jnp.arange(5)[None])
    assert drawn(Visibility(prefix=prefix), 5) == [[1, 1, 1, 0, 0]] * 3 + [[1, 1, 1, 1, 0], [1, 1, 1, 1, 1]]
    narrow = drawn(Visibility(prefix=prefix, window=2), 5)
    assert narrow == [[1, 1, 1, 0, 0]] * 3 + [[0, 0, 1, 1, 0], [0, 0, 0, 1, 1]]


def test_a_prefix_belongs_to_its_segment():
    segments = jnp.array([[1, 1, 1, 2, 2, 2, 0]])
    lengths = jnp.where(segments == 2, 1, 2)
    sees = Visibility(segments, prefix=first_entries(lengths, positions_in_segments(segments)))
    first, second = [[1, 1, 0], [1, 1, 0], [1, 1, 1]], [[1, 0, 0], [1, 1, 0], [1, 1, 1]]
    found = np.asarray(drawn(sees, 7))
    assert found[:3, :3].tolist() == first and found[3:6, 3:6].tolist() == second
    assert not found[:3, 3:].any() and not found[3:6, [0, 1, 2, 6]].any()
    part = sees.dense(7, first=3, queries=3)
    assert np.asarray(part)[0].astype(int).tolist() == found[3:6].tolist()


def test_blocks_see_themselves_and_earlier_ones():
    sees = [[1, 1, 0, 0, 0], [1, 1, 0, 0, 0], [1, 1, 1, 1, 0], [1, 1, 1, 1, 0], [1, 1, 1, 1, 1]]
    assert drawn(Visibility(block=2), 5) == sees
    assert drawn(Visibility(blocks=jnp.array([[0, 0, 1, 1, 2]])), 5) == sees
    assert drawn(Visibility(block=2, window=1), 5)[2:] == [[0, 0, 1, 1, 0], [0, 0, 1, 1, 0], [0, 0, 0, 0, 1]]
    uneven = drawn(Visibility(blocks=jnp.array([[0, 1, 1, 1, 4]])), 5)
    assert uneven == [[1, 0, 0, 0, 0], [1, 1, 1, 1, 0], [1, 1, 1, 1, 0], [1, 1, 1, 1, 0], [1, 1, 1, 1, 1]]


@pytest.mark.parametrize(
    "wrong, message",
    [
        ({"prefix": PREFIX, "block": 4}, "visibility is 'prefix, block': only one"),
        ({"block": 4, "causal": False}, "causal is False: a block says"),
        ({"block": 0}, "block is 0: must be at least 1"),
    ],
)
def test_rules_that_contradict_each_other_are_refused(wrong, message):
    with pytest.raises(UserError, match=message):
        Visibility(SEGMENTS, **wrong)


def test_what_a_fused_kernel_cannot_do_falls_to_the_equation(monkeypatch):
    """Which backend a platform takes; on a CPU, where this runs, cuDNN itself cannot."""
    numbered = Visibility(blocks=SEGMENTS)
    half = jnp.zeros((1, 8, 2, 64), jnp.bfloat16)
    monkeypatch.setattr(self_attention, "platform", lambda: "gpu")
    plain = [name for name, sees in CASES.items() if preferred(half, None, sees) == "cudnn"]
    assert plain == ["causal", "causal in segments", "window", "both ways"]
    assert preferred(half, None, numbered) == "xla"
    too_wide, odd, single = jnp.zeros((1, 8, 2, 256), jnp.bfloat16), half[..., :12], half.astype(jnp.float32)
    assert {preferred(q) for q in (too_wide, odd, single)} == {"xla"}
    monkeypatch.setattr(self_attention, "platform", lambda: "tpu")
    assert {preferred(half, None, sees) for sees in CASES.values()} == {"splash"}
    assert preferred(half, None, numbered) == "xla"


def test_without_a_fused_kernel_the_dense_form_is_computed():
    for sees in (Visibility(SEGMENTS, prefix=PREFIX), Visibility(blocks=jnp.arange(T)[None].repeat(B, 0) // 24)):
        np.testing.assert_array_equal(attend_self(Q, K, V, sees), attend(Q, K, V, mask=sees.dense(T)))
    with pytest.raises(UserError, match="backend is 'splash': numbers no blocks"):
        attend_self(Q, K, V, sees, backend="splash")
    with pytest.raises(UserError, match="backend is 'cudnn': knows no prefix and no blocks"):
        attend_self(Q, K, V, sees, backend="cudnn")
