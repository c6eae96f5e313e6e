"""Every transform: what it asks of the source, where each number goes, and that its two directions are inverse."""

import jax.numpy as jnp
import numpy as np
import pytest

from slm_jax.core.errors import UserError
from slm_jax.interop.transforms import (
    FLAT,
    SAME,
    Conv,
    Copies,
    Dense,
    Folded,
    Fused,
    Patches,
    Pointwise,
    Reshape,
    Rolled,
    Rotary,
    Unfolded,
)
from slm_jax.nn.conv import weight_normed
from slm_jax.nn.positions import positions_from_mask, rotate, rotation

CASES = {
    "same": (SAME, [(3, 5)], [(3, 5)]),
    "flat": (FLAT, [(3, 4)], [(12,)]),
    "reshape": (Reshape((1, -1, 1)), [(7,)], [(1, 7, 1)]),
    "dense": (Dense(), [(5, 7)], [(7, 5)]),
    "dense_heads_out": (Dense(), [(6, 3, 4)], [(12, 6)]),
    "dense_heads_in": (Dense(inputs=2), [(3, 4, 6)], [(6, 12)]),
    "dense_stored_as_ours": (Dense(transposed=False), [(6, 3, 4)], [(6, 12)]),
    "conv": (Conv(), [(3, 2, 5)], [(5, 2, 3)]),
    "conv_transposed": (Conv(transposed=True), [(3, 2, 5)], [(2, 5, 3)]),
    "rolled": (Rolled(Conv(), first=2), [(3, 7, 5)], [(5, 7, 3)]),
    "patches": (Patches(2), [(6, 5)], [(5, 1, 2, 3)]),
    "pointwise": (Pointwise(), [(6, 5)], [(5, 6, 1)]),
    "copies": (Copies(1), [(4, 3)], [(4, 3)]),
    "fused_columns": (Fused(Dense(transposed=False), axis=1), [(6, 3, 4), (6, 1, 4)], [(6, 16)]),
    "fused_rows": (Fused(FLAT), [(3, 4), (1, 4), (1, 4)], [(20,)]),
    "rotary": (Rotary(Dense()), [(6, 3, 4)], [(12, 6)]),
    "rotary_bias": (Rotary(FLAT), [(3, 4)], [(12,)]),
}


def drawn(shapes, seed=0):
    rng = np.random.default_rng(seed)
    return [rng.normal(size=shape).astype(np.float32) for shape in shapes]


@pytest.mark.parametrize("name", CASES)
def test_backward_inverts_forward_and_shapes_are_foretold(name):
    transform, targets, sources = CASES[name]
    assert transform.source_shapes(targets) == sources
    theirs = drawn(sources)
    ours = transform.forward(theirs, targets)
    assert [array.shape for array in ours] == targets
    for back, array in zip(transform.backward(ours), theirs, strict=True):
        np.testing.assert_array_equal(back, array)


def test_dense_is_the_same_map():
    weight, x = drawn([(12, 6), (6,)])
    (kernel,) = Dense().forward([weight], [(6, 3, 4)])
    np.testing.assert_allclose(np.tensordot(x, kernel, 1).reshape(-1), weight @ x, rtol=1e-5)


def test_patches_are_the_convolution_over_its_own_stride():
    weight, square = drawn([(5, 1, 2, 3), (2, 3)])
    (kernel,) = Patches(2).forward([weight], [(6, 5)])
    np.testing.assert_allclose(square.reshape(-1) @ kernel, (weight[:, 0] * square).sum((1, 2)), rtol=1e-5)


def test_copies_are_written_all_and_must_agree():
    (shared,) = drawn([(4, 3)])
    assert Copies(3).source_shapes([(4, 3)]) == [(4, 3)] * 3
    assert len(Copies(3).backward([shared])) == 3
    np.testing.assert_array_equal(Copies(3).forward([shared] * 3, [(4, 3)])[0], shared)
    with pytest.raises(UserError, match="3 weights that should be copies of one differ"):
        Copies(3).forward([shared, shared, shared + 1], [(4, 3)])


def test_fused_parts_come_in_order():
    (weight,) = drawn([(20,)])
    parts = Fused(FLAT).forward([weight], [(3, 4), (1, 4), (1, 4)])
    np.testing.assert_array_equal(np.concatenate([part.reshape(-1) for part in parts]), weight)


def test_rotary_maps_give_the_scores_of_rotated_neighbours():
    """The original formula turns channels (2i, 2i + 1) as one complex number."""
    width, heads, channels, steps = 6, 3, 4, 5
    query, key, x = drawn([(heads * channels, width), (heads * channels, width), (steps, width)])
    angles = np.arange(steps)[:, None] * 100.0 ** (-np.arange(0, channels, 2) / channels)

    def turned(weight):
        pairs = (x @ weight.T).reshape(steps, heads, channels // 2, 2).astype(np.float64)
        return (pairs[..., 0] + 1j * pairs[..., 1]) * np.exp(1j * angles)[:, None]

    wanted = np.einsum("thc,shc->hts", turned(query), turned(key).conj()).real
    by = rotation(positions_from_mask(jnp.ones((1, steps), bool)), channels, 100.0)
    ours = []
    for weight in (query, key):
        (kernel,) = Rotary(Dense()).forward([weight], [(width, heads, channels)])
        ours.append(rotate(jnp.asarray(np.tensordot(x, kernel, 1))[None], by)[0])
    np.testing.assert_allclose(jnp.einsum("thc,shc->hts", *ours), wanted, atol=1e-4)


@pytest.mark.parametrize("kept", [0, 2])
@pytest.mark.parametrize("inner", [Conv(), Conv(transposed=True)])
def test_weight_norm_folds_as_the_layer_computes_it(inner, kept):
    target = (3, 2, 5)
    shapes = Folded(inner, kept).source_shapes([target])
    theirs = drawn(shapes)
    (kernel,) = Folded(inner, kept).forward(theirs, [target])
    length, direction = (inner.forward([array], [target])[0] for array in theirs)
    np.testing.assert_allclose(kernel, weight_normed(jnp.asarray(length), jnp.asarray(direction)), rtol=1e-5)


def test_a_plain_weight_becomes_a_weight_norm_of_the_same_kernel():
    transform, targets = Unfolded(Conv()), [(1, 1, 5), (3, 2, 5)]
    (weight,) = drawn(transform.source_shapes(targets))
    ours = transform.forward([weight], targets)
    assert [array.shape for array in ours] == targets
    np.testing.assert_allclose(weight_normed(*map(jnp.asarray, ours)), Conv().forward([weight], targets)[0], rtol=1e-5)
    np.testing.assert_allclose(transform.backward(ours)[0], weight, rtol=1e-5)


def test_a_folded_kernel_is_not_written_as_a_weight_norm():
    with pytest.raises(UserError, match="write the plain weight"):
        Folded(Conv()).backward(drawn([(3, 2, 5)]))
