"""Cases of `bench`: codecs of published sizes, whole recordings and push by push."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from slm_jax.assemblies.codec import CodecConfig
from slm_jax.core.trees import count_bytes
from slm_jax.core.types import Codes
from slm_jax.interop import reference_bench_codecs
from slm_jax.interop.reference_bench import TorchJob
from slm_jax.serving.codec import CodecSession
from slm_jax.workbench.bench import Arrays, BenchSettings, Job, largest_difference
from slm_jax.workbench.bench_ours import array_of, carried, normal
from slm_jax.workbench.bench_shapes import DAC_16KHZ, ENCODEC_6KBPS, MIMI, QUICK

SHAPES: dict[str, dict[str, Any]] = {"encodec": ENCODEC_6KBPS, "mimi": MIMI, "dac": DAC_16KHZ}
SECONDS = 10
OTHERWISE = 0.01
"""Share of the codes that may differ: of two that are equally near either is right, and later books follow it."""
PUSHES = 4
"""Pushes of a stream that must agree."""
FRAMES = 32
"""Different ones that a stream goes through, over and over."""


def encode(settings: BenchSettings, family: str) -> Job:
    """Codes of ten seconds of noise."""
    torch_job, model, params, samples, _ = _codec(settings, family, decodes=False)
    apply, inputs = jax.jit(partial(model.apply, method="encode")), jnp.asarray(samples)

    def ours() -> Arrays:
        return {"codes": np.asarray(apply({"params": params}, inputs).ids).astype(np.int64)}

    traffic = count_bytes({name: params[name] for name in params if "decoder" not in name})
    return Job(ours, torch_job.ways, torch_job.flops, traffic, difference=other_codes)


def decode(settings: BenchSettings, family: str) -> Job:
    """Samples of the codes of ten seconds."""
    torch_job, model, params, _, ids = _codec(settings, family, decodes=True)
    apply = jax.jit(partial(model.apply, method="decode"))
    codes = Codes(jnp.asarray(ids, jnp.int32), jnp.ones(ids.shape[:2], bool))
    traffic = count_bytes({name: params[name] for name in params if "encoder" not in name})

    def ours() -> Arrays:
        return {"samples": array_of(apply({"params": params}, codes))}

    return Job(ours, torch_job.ways, torch_job.flops, traffic, difference=sound)


def stream(settings: BenchSettings) -> Job:
    """One frame of 80 ms to codes and back, as a session of one row does it."""
    shape = MIMI | (QUICK["mimi"] if settings.quick else {})
    books, hop = shape["num_quantizers"], 2 * int(np.prod(shape["upsampling_ratios"]))
    frames = np.split(0.1 * normal((1, FRAMES * hop)), FRAMES, axis=1)
    torch_job = reference_bench_codecs.streaming(shape, frames, books, settings.dtype)
    model, params = carried(torch_job, settings.dtype)
    session, everyone, turn = CodecSession(model.config, {"params": params}, batch=1), np.ones(1, bool), 0

    def ours() -> Arrays:
        nonlocal turn
        codes = np.stack(session.encode(frames[turn % FRAMES], everyone))
        turn += 1
        return {"codes": codes.astype(np.int64), "samples": np.stack(session.decode(codes, everyone))}

    return Job(ours, torch_job.ways, torch_job.flops, count_bytes(params), compared=PUSHES)


def other_codes(ours: Arrays, theirs: Arrays) -> tuple[float, float]:
    """Share of the codes that differ."""
    return float((ours["codes"] != theirs["codes"]).mean()), OTHERWISE


def sound(ours: Arrays, theirs: Arrays) -> tuple[float, float]:
    """Largest difference of the samples; DAC of transformers leaves the last ones of its odd strides out."""
    length = theirs["samples"].shape[1]
    return largest_difference({"samples": ours["samples"][:, :length]}, theirs)


def plain_kernels(config: CodecConfig) -> CodecConfig:
    """The codec without weight norm, as the PyTorch side has it."""
    sides = {name: getattr(config, name).replace(weight_norm=False) for name in ("encoder", "decoder")}
    return config.replace(**sides)


def _codec(
    settings: BenchSettings, family: str, decodes: bool
) -> tuple[TorchJob, Any, dict[str, Any], np.ndarray, np.ndarray]:
    """The other side, our module and parameters, samples and their codes."""
    shape = SHAPES[family] | (QUICK[family] if settings.quick else {})
    rate_hz = shape.get("sampling_rate", 24_000)
    samples = 0.1 * normal((1, 2_400 if settings.quick else SECONDS * rate_hz))
    torch_job, ids = reference_bench_codecs.coding(family, shape, samples, decodes, settings.compile, settings.dtype)
    model, params = carried(torch_job, settings.dtype, plain_kernels)
    return torch_job, model, params, samples, ids
