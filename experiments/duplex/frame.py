"""A Moshi-shaped model whose whole frame stays under 80 ms on a CPU: every frame of a session of ten minutes, timed.

    python experiments/duplex/frame.py
    python experiments/duplex/frame.py --paced --rows 4 --frames 750

Drawn weights: a temporal transformer, a depth transformer with kernels of its own for each of 8 books of 2,048, a
streaming codec of 12.5 frames a second at 16 kHz. One push is one frame: codec encode, temporal step, depth loop,
drawing, codec decode, in one program. Beside it each part alone, a program of its own. `--paced` waits for the next
frame as a microphone does. Writes `frame.json` beside this file, or `--out`.
"""

import argparse
import json
import time
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from slm_jax.assemblies.codec import CodecConfig
from slm_jax.assemblies.codec_tokenizer import CodecTokenizer
from slm_jax.cli.memory import keep_memory
from slm_jax.core.trees import count_parameters
from slm_jax.decoders.spectral import SpectralDecoderConfig
from slm_jax.encoders.spectral import SpectralEncoderConfig
from slm_jax.generation.advance import StepIn, decoding
from slm_jax.generation.sampling import SamplingConfig
from slm_jax.parallel.sharding import unbox
from slm_jax.quantizers.codebooks import CodebookConfig
from slm_jax.quantizers.residual import ResidualVQConfig
from slm_jax.sequence_models.depth import DepthConfig
from slm_jax.sequence_models.multi_stream import MultiStreamConfig
from slm_jax.sequence_models.presets import llama
from slm_jax.sequence_models.temporal_depth import TemporalDepthConfig
from slm_jax.serving import duplex
from slm_jax.serving.spelling import Spelling
from slm_jax.systems.speech_text.moshi import delays
from slm_jax.text.tokenizers import ByteTokenizerConfig
from slm_jax.workbench.bench_machine import machine

BOOKS, CODES, FRAME_S = 8, 2048, 0.08
CODEC = CodecConfig(
    encoder=SpectralEncoderConfig(),
    decoder=SpectralDecoderConfig(),
    quantizer=ResidualVQConfig(width=64, books=BOOKS, codebook=CodebookConfig(size=CODES, width=64)),
    stride=4,
    whole=True,
    rate_hz=16_000,
)
WAYS = ("p50", "p90", "p99", "p999", "max")


def options() -> argparse.Namespace:
    """What was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=7500, help="of the session")
    parser.add_argument("--rows", type=int, default=1, help="people who are talked to at once")
    parser.add_argument("--layers", type=int, default=12, help="of the temporal transformer")
    parser.add_argument("--width", type=int, default=512, help="of the temporal transformer")
    parser.add_argument("--dtype", default="float32", help="float32 or bfloat16")
    parser.add_argument("--paced", action="store_true", help="a frame every 80 ms, as a microphone gives them")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("frame.json"))
    return parser.parse_args()


def model_of(asked: argparse.Namespace) -> TemporalDepthConfig:
    """Moshi's form, narrow; a window of 3,000 frames."""
    width = asked.width
    body = llama("7b", vocabulary=1, layers=asked.layers, width=width, heads=8, kv_heads=8, hidden=width * 11 // 4)
    body = body.replace(tied_head=True, window=3000, max_positions=None, dtype=asked.dtype, unroll=True)
    streams = (8000, *[CODES] * (2 * BOOKS))
    return TemporalDepthConfig(
        temporal=MultiStreamConfig(streams=streams, body=body, blanks=True, heads=1),
        depth=DepthConfig(width=256, layers=4, heads=4, hidden=704, dtype=asked.dtype, unroll=True),
        written=1 + BOOKS,
    )


def drawn(module: Any, *shapes: Any, dtype: str = "float32") -> Any:
    """Weights of these shapes, drawn with NumPy."""
    rng = np.random.default_rng(0)
    tree = unbox(jax.eval_shape(module.init, jax.random.key(0), *shapes))
    return jax.tree.map(lambda leaf: jnp.asarray(0.02 * rng.standard_normal(leaf.shape), dtype), tree)


def session_of(asked: argparse.Namespace) -> tuple[duplex.DuplexSession, int]:
    """A session on drawn weights, and how many parameters its language model has."""
    config = model_of(asked)
    lm, codec = config.make(), CODEC.make()
    params = drawn(lm, jnp.zeros((1, 2, 1 + 2 * BOOKS), jnp.int32), dtype=asked.dtype)["params"]
    tokenizer = ByteTokenizerConfig().make()
    sampling = SamplingConfig(temperatures=(0.7, *[0.8] * (2 * BOOKS)), top_k=250, max_new=1)
    sides = duplex.sides_of(delays(1), BOOKS)
    codes = CodecTokenizer(CODEC, drawn(codec, jnp.zeros((1, 4 * CODEC.hop))))
    spelling, key = Spelling(tokenizer, tokenizer.size), jax.random.key(0)
    session = duplex.DuplexSession(codes, decoding(lm, sampling), params, sides, spelling, asked.rows, key)
    return session, count_parameters(params)


def timed_frames(session: duplex.DuplexSession, frames: int, paced: bool) -> np.ndarray:
    """Seconds of every push."""
    rng, everyone = np.random.default_rng(1), np.ones(session.batch, bool)
    sound = 0.1 * rng.standard_normal((session.batch, 50 * session.hop)).astype(np.float32)
    taken, begun = np.zeros(frames), time.perf_counter()
    for t in range(frames):
        if paced:
            time.sleep(max(0.0, begun + t * FRAME_S - time.perf_counter()))
        start = time.perf_counter()
        session.push(sound[:, (t % 50) * session.hop :][:, : session.hop], everyone)
        taken[t] = time.perf_counter() - start
    return taken


def timed_parts(session: duplex.DuplexSession, repeats: int = 200) -> dict[str, float]:
    """Median milliseconds of each part alone, in a program of its own."""
    codec, sides = session._form
    state, variables, steps, keys = session._state, session._variables, session._steps, session._keys
    active, samples = jnp.ones(session.batch, bool), jnp.zeros((session.batch, session.hop))
    ids = jnp.zeros((session.batch, 1 + 2 * BOOKS), jnp.int32)
    read = jnp.zeros((session.batch, steps.model.config.body.width), steps.model.config.body.dtype)
    parts = {
        "codec encode": (partial(duplex._coded, codec, sides), (variables, state.ears, samples, active)),
        "temporal step": (_temporal, (steps, variables["lm"], ids, state.lm)),
        "text, depth loop, drawing": (_written, (steps, variables["lm"], read, state.lm, active, keys)),
        "codec decode": (partial(duplex._sound, codec), (variables, state.voice, ids[:, 1 : 1 + BOOKS], active)),
    }
    return {name: _median_ms(jax.jit(function), arguments, repeats) for name, (function, arguments) in parts.items()}


def _temporal(steps: Any, variables: Any, ids: Any, lm: Any) -> Any:
    mask = jnp.ones((len(ids), 1), bool)
    return steps.model.apply(variables, ids[:, None], lm.caches, mask, method="step")[0]


def _written(steps: Any, variables: Any, read: Any, lm: Any, active: Any, keys: Any) -> Any:
    told = jnp.full(lm.last.shape, -1, jnp.int32)
    return steps.write(variables, read, StepIn(told, active), lm, keys)[0].ids


def _median_ms(function: Any, arguments: tuple, repeats: int) -> float:
    jax.block_until_ready(function(*arguments))
    taken = []
    for _ in range(repeats):
        start = time.perf_counter()
        jax.block_until_ready(function(*arguments))
        taken.append(time.perf_counter() - start)
    return 1000 * float(np.median(taken))


def calibration() -> float:
    """Milliseconds of a product of a 4,096 x 4,096 matrix with a vector: 64 MB read, as a frame reads its weights."""
    matrix, vector = jnp.ones((4096, 4096)), jnp.ones(4096)
    return _median_ms(jax.jit(jnp.matmul), (matrix, vector), 50)


def main() -> None:
    """Time, print, write."""
    asked = options()
    keep_memory()
    session, parameters = session_of(asked)
    session.warm_up()
    before, parts = calibration(), timed_parts(session)
    compiled = duplex.pushed._cache_size()
    taken = timed_frames(session, asked.frames, asked.paced)
    percentiles = np.append(np.percentile(taken, (50, 90, 99, 99.9)), taken.max())
    found = {
        "parameters": parameters,
        "asked": {name: value for name, value in vars(asked).items() if name != "out"},
        "frame_ms": dict(zip(WAYS, np.round(1000 * percentiles, 2).tolist(), strict=True)),
        "missed": int((taken > FRAME_S).sum()),
        "recompiled": duplex.pushed._cache_size() - compiled,
        "parts_ms": {name: round(value, 2) for name, value in parts.items()},
        "calibration_ms": [round(before, 2), round(calibration(), 2)],
        "machine": machine(),
    }
    asked.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
