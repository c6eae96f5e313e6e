"""Attention of a sequence over itself: the fused kernel of the platform, and rows, time and heads over a mesh.

    xla      the plain equation, everywhere
    splash   Pallas kernel for TPU; never holds scores (Dao et al. 2022 in form)
    cudnn    NVIDIA's fused kernel, half precision only

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
from slm_jax.nn.visibility import Visibility
from slm_jax.parallel.placement import axis_size, current_mesh, platform, time_spec

Backend = Literal["xla", "splash", "cudnn"]
LANES = 128
"""Splash works in blocks of multiples of this many entries."""
BLOCKS = (512, 256, 128)


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
    backend = backend or preferred(q, dropout)
    mesh = current_mesh()
    if backend == "xla" and (dropout is not None or axis_size(mesh, ("sequence",)) == 1):
        return attend(q, k, v, mask=sees.dense(q.shape[1]), dropout=dropout)  # XLA's partitioner does the rest
    require(dropout is None, "backend", backend, "drops no weights; take xla")
    if backend == "splash":
        return _splash(q, k, v, sees, mesh)
    return _over_mesh(partial(_local, backend, sees), mesh, q, k, v, sees.segments)


def preferred(q: Float[Array, "B T H C"], dropout: Dropout | None = None) -> Backend:
    """The quickest backend that can do it on the platform of the step being traced."""
    if dropout is not None:
        return "xla"
    if platform() == "tpu":
        return "splash"
    half = q.dtype in (jnp.bfloat16, jnp.float16)
    return "cudnn" if platform() == "gpu" and half and q.shape[-1] % 8 == 0 else "xla"


def _local(
    backend: Backend,
    sees: Visibility,
    q: Float[Array, "B Q H C"],
    k: Float[Array, "B T G C"],
    v: Float[Array, "B T G C"],
    segments: Int[Array, "B T"] | None,
    first: Int[Array, ""] | int,
) -> Float[Array, "B Q H C"]:
    """The queries from entry `first` on, on one device."""
    here = Visibility(segments, causal=sees.causal, window=sees.window)
    whole = q.shape[1] == k.shape[1]
    if backend == "cudnn":
        mask = None if segments is None and whole else here.dense(k.shape[1], first, q.shape[1])
        causal = sees.causal and mask is None
        window = (sees.window - 1, 0) if causal and sees.window is not None else None
        mask = None if mask is None else mask[:, None]
        return jax.nn.dot_product_attention(
            q, k, v, mask=mask, is_causal=causal, local_window_size=window, implementation="cudnn"
        )
    return attend(q, k, v, mask=here.dense(k.shape[1], first, q.shape[1]))


def _over_mesh(
    local: Callable[..., Array], mesh: Mesh | None, q: Any, k: Any, v: Any, segments: Any
) -> Float[Array, "B T H C"]:
    """`local(q, k, v, segments, first)` on every device, with its rows, queries and heads and all keys of its rows."""
    if mesh is None:
        return local(q, k, v, segments, 0)
    specs = _specs(mesh, q, k)

    def run(q: Array, k: Array, v: Array, segments: Any) -> Array:
        first = jax.lax.axis_index("sequence") * q.shape[1] if specs[0][1] else 0
        return local(q, k, v, segments, first)

    rows = PartitionSpec(specs[0][0])
    return _mapped(run, mesh, (specs[0], specs[1], specs[1], rows), specs[0])(q, k, v, segments)


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
    kernel = _kernel(sees, q.shape[1], heads, shards)

    def run(kernel: Any, q: Array, k: Array, v: Array, of_q: Any, of_k: Any) -> Array:
        ids = None if of_q is None else SegmentIds(of_q, of_k)
        turned = (jnp.swapaxes(x, 1, 2) for x in (q, k, v))
        return jnp.swapaxes(jax.vmap(kernel)(*turned, ids), 1, 2)

    if mesh is not None:
        by_rows = (PartitionSpec(*specs[0][:2]), PartitionSpec(specs[0][0]))
        place = kernel.manual_sharding_spec(NamedSharding(mesh, PartitionSpec(None, "sequence")))
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


def _kernel(sees: Visibility, length: int, heads: int, shards: int) -> Any:
    from jax.experimental.pallas.ops.tpu import splash_attention as splash

    shape = (length, length)
    mask: Any
    if not sees.causal:
        mask = splash.FullMask(shape)
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
            q_seq_shards=shards,
            interpret=platform() != "tpu",
        )
