"""Counted operations against closed forms."""

from functools import partial

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import AbstractMesh, AxisType, PartitionSpec

from slm_jax.core.flops import Flops, count_flops, products_along


def counted(function, *shapes):
    """Operations of a function of float32 arrays."""
    return count_flops(jax.make_jaxpr(function)(*(jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes)))


def test_products_of_matrices():
    assert counted(jnp.matmul, (3, 5, 7), (3, 7, 11)) == Flops(2 * 3 * 5 * 7 * 11)
    assert counted(lambda a, b: jnp.einsum("bthc,bshc->bhts", a, b), (2, 5, 3, 4), (2, 6, 3, 4)).total == 2 * 720
    assert counted(lambda a: jnp.tanh(a) + a, (100, 100)) == Flops()


def convolution(x, kernel, **changes):
    dimensions = ("NWC", "WIO", "NWC")
    options = {"window_strides": (1,), "padding": "VALID", "dimension_numbers": dimensions, **changes}
    return jax.lax.conv_general_dilated(x, kernel, **options)


def test_convolutions_count_taps_on_real_inputs():
    assert counted(convolution, (2, 20, 6), (5, 6, 8)).total == 2 * 2 * 16 * 8 * 5 * 6
    strided = partial(convolution, window_strides=(3,))
    assert counted(strided, (2, 20, 6), (5, 6, 8)).total == 2 * 2 * 6 * 8 * 5 * 6
    grouped = partial(convolution, feature_group_count=2)
    assert counted(grouped, (2, 20, 6), (5, 3, 8)).total == 2 * 2 * 16 * 8 * 5 * 3
    same = partial(convolution, padding="SAME")  # the taps that fall on padding, 2 + 1 on each side, do no work
    assert counted(same, (1, 20, 1), (5, 1, 1)).total == 2 * (20 * 5 - 6)


def test_a_transposed_convolution_costs_as_much_as_the_one_it_turns_round():
    down = counted(partial(convolution, window_strides=(4,)), (1, 32, 3), (4, 3, 5)).total
    up = counted(
        lambda x, kernel: jax.lax.conv_transpose(x, kernel, (4,), "VALID", dimension_numbers=("NWC", "WIO", "NWC")),
        (1, 8, 5),
        (4, 5, 3),
    ).total
    assert down == up == 2 * 8 * 4 * 3 * 5


def test_both_ways_of_counting_taps_agree():
    for kernel, out in ((3, 9), (9, 3)):
        brute = sum(
            0 <= t * 2 - 1 + k * 3 <= (7 - 1) * 2 and (t * 2 - 1 + k * 3) % 2 == 0
            for t in range(out)
            for k in range(kernel)
        )
        assert products_along(7, kernel, out, 2, 1, 2, 3) == brute


def test_a_scan_counts_as_the_same_written_out():
    def scanned(x, kernels):
        return jax.lax.scan(lambda x, kernel: (jnp.tanh(x @ kernel), None), x, kernels)[0]

    def unrolled(x, kernels):
        for kernel in kernels:
            x = jnp.tanh(x @ kernel)
        return x

    shapes = (4, 8), (6, 8, 8)
    assert counted(scanned, *shapes) == counted(unrolled, *shapes) == Flops(6 * 2 * 4 * 8 * 8)
    gradients = [counted(jax.grad(lambda x, k, f=f: f(x, k).sum(), (0, 1)), *shapes) for f in (scanned, unrolled)]
    assert gradients[0] == gradients[1] == Flops(3 * 6 * 2 * 4 * 8 * 8)


def test_loops_without_a_known_end_are_counted_once_and_told():
    def function(x, n):
        return jax.lax.fori_loop(0, n, lambda i, x: x @ x, x)

    jaxpr = jax.make_jaxpr(function)(jnp.ones((4, 4)), 3)
    assert count_flops(jaxpr) == Flops(2 * 4**3, open_loops=1)
    assert counted(lambda x: jax.lax.fori_loop(0, 5, lambda i, x: x @ x, x), (4, 4)) == Flops(5 * 2 * 4**3)


def test_of_branches_the_largest_counts():
    def function(x):
        return jax.lax.cond(x[0, 0] > 0, lambda x: x @ x @ x, lambda x: x @ x, x)

    assert counted(function, (4, 4)).total == 2 * 2 * 4**3


def two_layers(x, first, second):
    return jnp.sin(jnp.sin(x @ first) @ second)


@pytest.mark.parametrize("scan", [False, True])
def test_rematerialisation_adds_work_that_the_model_does_not_need(scan):
    rows, width, hidden, layers = 4, 8, 16, 3

    def loss(block, x, first, second):
        if scan:
            x = jax.lax.scan(lambda x, kernels: (block(x, *kernels), None), x, (first, second))[0]
        else:
            for i in range(layers):
                x = block(x, first[i], second[i])
        return x.sum()

    shapes = (rows, width), (layers, width, hidden), (layers, hidden, width)
    product = 2 * rows * width * hidden
    plain = counted(jax.grad(partial(loss, two_layers), (0, 1, 2)), *shapes)
    again = counted(jax.grad(partial(loss, jax.checkpoint(two_layers)), (0, 1, 2)), *shapes)
    assert plain == Flops(layers * 2 * 3 * product)
    assert again == Flops(plain.total + layers * 2 * product, recomputed=layers * 2 * product)
    assert again.model == plain.total


def test_a_shard_map_counts_all_its_shards():
    mesh = AbstractMesh((2, 4), ("a", "b"), axis_types=(AxisType.Auto,) * 2)
    product = jax.shard_map(
        jnp.matmul,
        mesh=mesh,
        in_specs=(PartitionSpec(("a", "b")), PartitionSpec()),
        out_specs=PartitionSpec(("a", "b")),
    )
    assert counted(product, (16, 8), (8, 8)).total == 2 * 16 * 8 * 8


def flash_attention(q, k, v):
    from jax.experimental.pallas.ops.tpu.splash_attention import (
        BlockSizes,
        FullMask,
        MultiHeadMask,
        make_splash_mha_single_device,
    )

    sizes = BlockSizes(*[128] * 8)
    mask = MultiHeadMask([FullMask((q.shape[1], q.shape[1]))] * q.shape[0])
    return make_splash_mha_single_device(mask, block_sizes=sizes, interpret=True)(q, k, v)


def test_attention_kernels_count_as_the_equation_does():
    heads, length, width = 2, 256, 128
    shapes = [(heads, length, width)] * 3
    product = 2 * heads * length * length * width
    assert counted(flash_attention, *shapes) == Flops(2 * product)
    gradient = counted(jax.grad(lambda *x: flash_attention(*x).sum(), (0, 1, 2)), *shapes)
    rows = 2 * heads * length * width  # the output times its cotangent, summed over the channels
    assert gradient.model == 6 * product + rows  # two forward and four backward
    assert gradient.recomputed == 3 * product  # scores and dP once more for the queries, scores for the keys
