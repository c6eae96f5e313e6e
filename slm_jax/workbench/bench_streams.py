"""Cases of `bench`: models of several streams."""

import jax
import jax.numpy as jnp
import numpy as np

from slm_jax.core.trees import count_bytes
from slm_jax.core.types import EMPTY, Frames
from slm_jax.generation.decode import generate
from slm_jax.generation.sampling import SamplingConfig
from slm_jax.interop import reference_bench_streams
from slm_jax.schemes.delay import Delay
from slm_jax.workbench.bench import Arrays, BenchSettings, Job
from slm_jax.workbench.bench_ours import carried, normal
from slm_jax.workbench.bench_shapes import MUSICGEN_12, QUICK

HEARD = 16
"""Vectors of text that are listened to."""


def delayed(settings: BenchSettings) -> Job:
    """The likeliest codes of 100 steps of four books, each a step later than the one before, one row."""
    shape = MUSICGEN_12 | (QUICK["musicgen_decoder"] if settings.quick else {})
    books, steps = shape["num_codebooks"], 12 if settings.quick else 100
    heard = normal((1, HEARD, shape["hidden_size"]))
    torch_job = reference_bench_streams.delayed(shape, heard, steps, settings.compile, settings.dtype)
    model, params = carried(torch_job, settings.dtype)
    params = jax.tree.map(jnp.asarray, params)
    table = Delay(delays=tuple(range(books))).table(steps, books)[:steps, :, 0]
    forced = np.where(table < 0, EMPTY, -1)[None].astype(np.int32)
    start, mask, key = np.full((1, 1, books), EMPTY, np.int32), np.ones((1, 1), bool), jax.random.key(0)
    context = Frames(jnp.asarray(heard, settings.dtype), jnp.ones(heard.shape[:2], bool))
    sampling = SamplingConfig(max_new=steps, temperature=0.0)

    def ours() -> Arrays:
        made = generate(model, params, start, mask, key, sampling, forced=forced, context=context)
        codes = np.where(table < 0, shape["pad_token_id"], np.asarray(made.ids))
        return {"codes": codes.astype(np.int64)}

    return Job(ours, torch_job.ways, torch_job.flops, steps * count_bytes(params))
