"""Cases of `bench`: codes of several books, side by side or in one line."""

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
from slm_jax.workbench.bench_shapes import AUDIOLM_COARSE, MOSHI_12, MUSICGEN_12, QUICK

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


def framewise(settings: BenchSettings) -> Job:
    """The likeliest text and codes of 100 frames of Moshi's form while a user is heard, one row."""
    shape = MOSHI_12 | (QUICK["moshi"] if settings.quick else {})
    books, steps = shape["num_codebooks"], 12 if settings.quick else 100
    heard = np.random.default_rng(0).integers(0, shape["audio_vocab_size"], (steps, books))
    torch_job = reference_bench_streams.framewise(shape, heard, steps, settings.compile, settings.dtype)
    model, params = carried(torch_job, settings.dtype)
    params = jax.tree.map(jnp.asarray, params)
    delays = reference_bench_streams.moshi_delays(books)
    told = np.full((1, steps, 1 + 2 * books), -1, np.int32)
    for k, delay in enumerate(delays):
        told[:, :delay, k] = EMPTY
        if k > books:
            told[:, delay:, k] = heard[: steps - delay, k - 1 - books]
    start, mask, key = np.full((1, 1, 1 + 2 * books), EMPTY, np.int32), np.ones((1, 1), bool), jax.random.key(0)
    sampling = SamplingConfig(max_new=steps, temperature=0.0)

    def ours() -> Arrays:
        made = np.asarray(generate(model, params, start, mask, key, sampling, forced=told).ids)
        return {"ids": reference_bench_streams.aligned(made[0, :, : 1 + books], delays).astype(np.int64)}

    return Job(ours, torch_job.ways, torch_job.flops, steps * count_bytes(params))


def coarse(settings: BenchSettings) -> Job:
    """AudioLM's coarse stage: the 400 likeliest ids after 250 units, one row. Four books at 50 Hz make that 2 s."""
    shape = AUDIOLM_COARSE | (QUICK["t5_stack"] if settings.quick else {})
    heard, new = (8, 12) if settings.quick else (250, 400)
    prompt = np.random.default_rng(0).integers(0, shape["vocab_size"], (1, heard))
    torch_job = reference_bench_streams.in_line(shape, prompt, new, settings.compile, settings.dtype)
    model, params = carried(torch_job, settings.dtype)
    params = jax.tree.map(jnp.asarray, params)
    mask, key, sampling = np.ones(prompt.shape, bool), jax.random.key(0), SamplingConfig(max_new=new, temperature=0.0)

    def ours() -> Arrays:
        made = generate(model, params, prompt.astype(np.int32), mask, key, sampling)
        return {"ids": np.asarray(made.ids).astype(np.int64)}

    return Job(ours, torch_job.ways, torch_job.flops, new * count_bytes(params))
