"""A case of `bench`: one frame of a session without turns, from samples to samples."""

from typing import Any

import jax
import numpy as np

from slm_jax.assemblies.codec_tokenizer import CodecTokenizer
from slm_jax.core.trees import count_bytes
from slm_jax.generation.advance import decoding
from slm_jax.generation.sampling import SamplingConfig
from slm_jax.interop import reference_bench_duplex
from slm_jax.interop.reference_bench_streams import moshi_delays
from slm_jax.serving.duplex import DuplexSession, Sides
from slm_jax.serving.spelling import Spelling
from slm_jax.text.tokenizers import ByteTokenizerConfig
from slm_jax.workbench.bench import Arrays, BenchSettings, Job, largest_difference
from slm_jax.workbench.bench_codecs import FRAMES, PUSHES
from slm_jax.workbench.bench_ours import carried, normal
from slm_jax.workbench.bench_shapes import MIMI, MOSHI_12, QUICK


def frame(settings: BenchSettings) -> Job:
    """80 ms heard by the whole of Mimi, text and eight codes written by Moshi's form, 80 ms spoken, one row."""
    mimi, moshi = _shapes(settings)
    hop, books = 2 * int(np.prod(mimi["upsampling_ratios"])), moshi["num_codebooks"]
    frames = np.split(0.1 * normal((1, FRAMES * hop)), FRAMES, axis=1)
    torch_side = reference_bench_duplex.duplexed(mimi, moshi, frames, settings.dtype)
    codec, codec_params = carried(torch_side.codec, settings.dtype)
    lm, lm_params = carried(torch_side.lm, settings.dtype)
    steps = decoding(lm, SamplingConfig(temperatures=(0.0,) * (1 + 2 * books), max_new=1))
    delays, letters = moshi_delays(books), ByteTokenizerConfig().make()
    session = DuplexSession(
        CodecTokenizer(codec.config, {"params": codec_params}, books),
        steps,
        lm_params,
        Sides(delays[1 : 1 + books], delays[1 + books :]),
        Spelling(letters, letters.size),
        1,
        jax.random.key(0),
    )
    everyone, turn = np.ones(1, bool), 0

    def ours() -> Arrays:
        nonlocal turn
        said = session.push(frames[turn % FRAMES], everyone).samples
        turn += 1
        return {"samples": np.asarray(said)[0]}

    traffic = count_bytes(codec_params) + count_bytes(lm_params)
    return Job(ours, torch_side.ways, torch_side.flops, traffic, compared=PUSHES, difference=sound)


def sound(ours: Arrays, theirs: Arrays) -> tuple[float, float]:
    """Largest difference of the samples: codes that differ would be heard."""
    return largest_difference(ours, {"samples": theirs["samples"]})


def _shapes(settings: BenchSettings) -> tuple[dict[str, Any], dict[str, Any]]:
    """Codec and model, with as many books of as many codes."""
    mimi, moshi = (MIMI | QUICK["mimi"], MOSHI_12 | QUICK["moshi"]) if settings.quick else (MIMI, MOSHI_12)
    same = {"num_codebooks": mimi["num_quantizers"], "audio_vocab_size": mimi["codebook_size"]}
    return mimi, moshi | same
