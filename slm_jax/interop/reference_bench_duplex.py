"""PyTorch at work for `bench`: a frame of Moshi with Mimi, samples to samples, as Kyutai's package streams it."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from slm_jax.interop.reference import Arrays
from slm_jax.interop.reference_bench import TorchJob, Way, as_array, as_tensor, counted, inference
from slm_jax.interop.reference_bench_codecs import streaming_mimi
from slm_jax.interop.reference_bench_streams import drawn_moshi, own_model


class DuplexTorch(NamedTuple):
    """Codec and model as jobs of their own that have nothing to do, for their weights; the ways of a whole frame."""

    codec: TorchJob
    lm: TorchJob
    ways: dict[str, Way]
    flops: float


def duplexed(
    mimi: Mapping[str, Any], moshi: Mapping[str, Any], frames: Sequence[np.ndarray], dtype: str = "float32"
) -> DuplexTorch:
    """The next of `frames` [1, hop] heard, the likeliest text and codes written, a frame spoken; over and over."""
    import torch
    from moshi.models.lm import LMGen

    books = moshi["num_codebooks"]
    codec, codec_weights = streaming_mimi(mimi, frames, books, dtype)
    _, hub, lm_weights = drawn_moshi(moshi)
    lm = own_model(hub, lm_weights, dtype)
    inputs, turn = [as_tensor(frame[:, None], dtype) for frame in frames], 0
    generator = LMGen(lm, use_sampling=False)

    def push() -> Arrays:
        nonlocal turn
        codes = codec.encode(inputs[turn % len(inputs)])
        turn += 1
        made = generator.step(codes)
        assert made is not None  # for the type checker: a row that has begun gives a frame at every step
        return {"ids": as_array(made)[0, :, 0], "samples": as_array(codec.decode(made[:, 1:])[0, 0])}

    def begin() -> Arrays:
        """What begins a row is read before anything is heard."""
        generator.step(torch.zeros((1, books, 1), dtype=torch.long, device=inputs[0].device))
        return {}

    with codec.streaming(1), generator.streaming(1):
        inference(begin)()
        flops = counted(inference(push))
    turn = 0
    codec.streaming_forever(1)
    generator.streaming_forever(1)
    inference(begin)()
    nothing: dict[str, Way] = {}
    return DuplexTorch(
        TorchJob("mimi", "kyutai", dict(mimi), codec_weights, nothing, 0.0),
        TorchJob("moshi", "transformers", hub, lm_weights, nothing, 0.0),
        {"moshi, streaming": inference(push)},
        flops,
    )
