"""Attention of a sequence over itself: the fused kernel of the platform, and rows, time and heads over a mesh.

    xla      the plain equation, everywhere, for all that `Visibility` can say
    splash   Pallas kernel for TPU; never holds scores (Dao et al. 2022 in form). A prefix takes two passes, blocks of
             one size a mask of their own; blocks numbered by data are left to xla
    cudnn    NVIDIA's fused kernel, half precision only, heads of up to 128 channels, without prefix and blocks

Fused kernels cannot be cut by XLA's partitioner, so they run under `shard_map`. Time that is spread over the axis
`sequence` is attended from where it lies: each device gathers the keys of its rows and keeps its own queries.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Float, Int

from slm_jax.core.errors import require
from slm_jax.nn.attend import Dropout, attend
from slm_jax.nn.splash_masks import block_mask
from slm_jax.nn.visibility import Visibility
from slm_jax.parallel.placement import axis_size, current_mesh, platform, time_spec

Backend = Literal["xla", "splash", "cudnn"]
LANES = 128
"""Splash works in blocks of multiples of this many entries."""
BLOCKS = (512, 256, 128)
CUDNN_WIDTH = 128
"""Channels of a head up to which every NVIDIA generation since Ampere has a fused kernel."""


def attend_self(
    q: Float[Array, "B T H C"],
    k: Float[Array, "B T G C"],
    v: Float[Array, "B T G C"],
    sees: Visibility,
    dropout: Dropout | None = None,
    backend: Backend | None = None,
) -> Float[Array, "B T H C"]:
    """`softmax(q k / sqrt(C)) v` over what `sees` shows; `backend` None takes the platform's.

    What a padded entry gets means nothing. With `dropout` (on the weights) only the plain equation will do.
    """
    backend = backend or preferred(q, dropout, sees)
    mesh = current_mesh()
    if backend == "xla" and (dropout is not None or axis_size(mesh, ("sequence",)) == 1):
        return attend(q, k, v, mask=sees.dense(q.shape[1]), dropout=dropout)  # XLA's partitioner does the rest
    require(dropout is None, "backend", backend, "drops no weights; take xla")
    if backend == "splash":
        rule = f"numbers no blocks, and over spread time knows none of multiples of {LANES}; take xla"
        require(_splash_knows(sees, mesh), "backend", backend, rule)
        if sees.prefix is not None:
            behind, within = (_splash(q, k, v, part, mesh) for part in sees.apart(q.shape[1]))
            return jnp.where(sees.prefix[:, :, None, None], within, behind)
        return _splash(q, k, v, sees, mesh)
    require(backend == "xla" or sees.plain, "backend", backend, "knows no prefix and no blocks; take xla")
    return _over_mesh(partial(_local, backend), mesh, q, k, v, sees)


def preferred(q: Float[Array, "B T H C"], dropout: Dropout | None = None, sees: Visibility | None = None) -> Backend:
    """The quickest backend that can do it on the platform of the step being traced; `sees` None: nothing special."""
    if dropout is not None:
        return "xla"
    if platform() == "tpu":
        return "splash" if sees is None or _splash_knows(sees, current_mesh()) else "xla"
    width = q.shape[-1]
    fits = q.dtype in (jnp.bfloat16, jnp.float16) and width % 8 == 0 and width <= CUDNN_WIDTH
    return "cudnn" if platform() == "gpu" and fits and (sees is None or sees.plain) else "xla"


def _splash_knows(sees: Visibility, mesh: Mesh | None) -> bool:
    """Not blocks that come as data. Nor, over spread time, those that no tile cuts: JAX 0.10.2 fails on such a mask."""
    aligned = sees.block is not None and sees.block % LANES == 0
    return sees.blocks is None and not (aligned and axis_size(mesh, ("sequence",)) > 1)


def _local(
    backend: Backend,
    q: Float[Array, "B Q H C"],
    k: Float[Array, "B T G C"],
    v: Float[Array, "B T G C"],
    sees: Visibility,
    first: Int[Array, ""] | int,
) -> Float[Array, "B Q H C"]:
    """The queries from entry `first` on, on one device."""
    whole = q.shape[1] == k.shape[1]
    if backend == "cudnn":
        mask = None if sees.segments is None and whole else sees.dense(k.shape[1], first, q.shape[1])
        causal = sees.causal and mask is None
        window = (sees.window - 1, 0) if causal and sees.window is not None else None
        mask = None if mask is None else mask[:, None]
        return jax.nn.dot_product_attention(
            q, k, v, mask=mask, is_causal=causal, local_window_size=window, implementation="cudnn"
        )
    return attend(q, k, v, mask=sees.dense(k.shape[1], first, q.shape[1]))


def _over_mesh(
    local: Callable[..., Array], mesh: Mesh | None, q: Any, k: Any, v: Any, sees: Visibility
) -> Float[Array, "B T H C"]:
    """`local(q, k, v, sees, first)` on every device, with its rows, queries and heads and all keys of its rows."""
    if mesh is None:
        return local(q, k, v, sees, 0)
    specs = _specs(mesh, q, k)

    def run(q: Array, k: Array, v: Array, sees: Visibility) -> Array:
        first = jax.lax.axis_index("sequence") * q.shape[1] if specs[0][1] else 0
        return local(q, k, v, sees, first)

    rows = PartitionSpec(specs[0][0])
    return _mapped(run, mesh, (specs[0], specs[1], specs[1], rows), specs[0])(q, k, v, sees)


def _specs(mesh: Mesh, q: Any, k: Any) -> tuple[PartitionSpec, PartitionSpec]:
    """How queries, and keys and values, lie: an axis that does not divide is left out."""
    rows, time = time_spec(mesh, q.shape)
    heads = "tensor" if q.shape[2] % mesh.shape["tensor"] == 0 and k.shape[2] % mesh.shape["tensor"] == 0 else None
    return PartitionSpec(rows, time, heads), PartitionSpec(rows, None, heads)


def _mapped(run: Callable, mesh: Mesh, specs: tuple, out: PartitionSpec) -> Callable:
    return jax.shard_map(run, mesh=mesh, in_specs=specs, out_specs=out, check_vma=False)


def _splash(q: Any, k: Any, v: Any, sees: Visibility, mesh: Mesh | None) -> Float[Array, "B T H C"]:
    """The Pallas kernel, in interpreted form where there is no TPU."""
    from jax.experimental.pallas.ops.tpu.splash_attention import SegmentIds

    length, shards = q.shape[1], axis_size(mesh, ("sequence",))
    q, k, v, segments = _padded(q * q.shape[-1] ** -0.5, k, v, sees.segments, LANES * shards)
    specs = (PartitionSpec(), PartitionSpec()) if mesh is None else _specs(mesh, q, k)
    heads = q.shape[2] // (axis_size(mesh, ("tensor",)) if len(specs[0]) > 2 and specs[0][2] else 1)
    full = not sees.causal or (sees.block is not None and sees.block >= q.shape[1])
    kernel = _kernel(sees, q.shape[1], heads, shards, full)

    def run(kernel: Any, q: Array, k: Array, v: Array, of_q: Any, of_k: Any) -> Array:
        ids = None if of_q is None else SegmentIds(of_q, of_k)
        turned = (jnp.swapaxes(x, 1, 2) for x in (q, k, v))
        return jnp.swapaxes(jax.vmap(kernel)(*turned, ids), 1, 2)

    if mesh is not None:
        by_rows = (PartitionSpec(*specs[0][:2]), PartitionSpec(specs[0][0]))
        place = kernel.manual_sharding_spec(NamedSharding(mesh, PartitionSpec(None, None if full else "sequence")))
        run = _mapped(run, mesh, (place, specs[0], specs[1], specs[1], *by_rows), specs[0])
    return run(kernel, q, k, v, segments, segments)[:, :length]


def _padded(q: Array, k: Array, v: Array, segments: Any, multiple: int) -> tuple[Array, Array, Array, Any]:
    """With the time of all filled up to a multiple; what is filled in is a segment of its own."""
    missing = -q.shape[1] % multiple
    if missing == 0:
        return q, k, v, segments
    segments = jnp.ones(q.shape[:2], jnp.int32) if segments is None else segments
    q, k, v = (jnp.pad(x, ((0, 0), (0, missing), (0, 0), (0, 0))) for x in (q, k, v))
    return q, k, v, jnp.pad(segments, ((0, 0), (0, missing)), constant_values=-1)


def _kernel(sees: Visibility, length: int, heads: int, shards: int, full: bool) -> Any:
    """The kernel for queries and keys of `length`, or for the queries of one of `shards` devices where all see all."""
    from jax.experimental.pallas.ops.tpu import splash_attention as splash

    shape = (length, length)
    mask: Any
    if full:
        mask = splash.FullMask((length // shards, length))  # the same for each: JAX 0.10.2 fails on its parts
    elif sees.block is not None:
        mask = block_mask(shape, sees.block, sees.window)
    elif sees.window is None:
        mask = splash.CausalMask(shape, shard_count=shards)
    else:
        mask = splash.LocalMask(shape, (sees.window - 1, 0), 0, shard_count=shards)
    queries = next(size for size in BLOCKS if (length // shards) % size == 0)
    keys = next(size for size in BLOCKS if length % size == 0)
    blocks = splash.BlockSizes(
        block_q=queries,
        block_kv=keys,
        block_kv_compute=keys,
        block_q_dkv=queries,
        block_kv_dkv=keys,
        block_kv_dkv_compute=keys,
        block_q_dq=queries,
        block_kv_dq=keys,
    )
    with jax.ensure_compile_time_eval():
        return splash.make_splash_mha(
            splash.MultiHeadMask([mask] * heads),
            block_sizes=blocks,
            head_shards=1,
            q_seq_shards=1 if full else shards,
            interpret=platform() != "tpu",
        )
