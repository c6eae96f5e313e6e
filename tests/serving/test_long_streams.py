"""Ten minutes through a session: memory that stays, no program made after the first minute, codes as of the whole."""

import gc
import logging
import resource
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from slm_jax.assemblies.codec import CodecConfig
from slm_jax.decoders.spectral import SpectralDecoderConfig
from slm_jax.encoders.spectral import SpectralEncoderConfig
from slm_jax.serving.codec import CodecSession
from tests.codecs import CODECS, SILENT, VQ, drawn_variables, small_codec

MINUTES, MIB = 10, 2**20
AS_MIMI = CODECS["as Mimi"]
LONG = {
    "as Mimi": small_codec(
        {**SILENT, "strides": (8, 8, 10)},
        stride=2,
        whole=True,
        quantizer=AS_MIMI.quantizer,
        context=AS_MIMI.context,
        rate_hz=8_000,
    ),
    "over spectra": CodecConfig(
        encoder=SpectralEncoderConfig(width=12, inner=16, blocks=2, kernel=3, mels=10, n_fft=640, hop=320),
        decoder=SpectralDecoderConfig(width=12, inner=16, blocks=2, kernel=3, n_fft=640, hop=320),
        quantizer=VQ,
        whole=True,
        rate_hz=16_000,
    ),
}
"""Of the smallest kind, at rates at which ten minutes are 3,750 and 30,000 frames."""
FRAMES = {"as Mimi": 1, "over spectra": 8}
"""In one push: 160 ms."""


@pytest.mark.slow(seconds=30)
@pytest.mark.parametrize("name", LONG)
def test_ten_minutes(name, caplog):
    config, variables = LONG[name], drawn_variables(LONG[name])
    session, everyone = CodecSession(config, variables, batch=1), np.ones(1, bool)
    samples, size = recording(config), FRAMES[name] * config.hop
    pushes = samples.shape[1] // size
    codes, heard, watched = [], [], []
    with jax.log_compiles(True), caplog.at_level(logging.WARNING, logger="jax"):
        for push in range(pushes):
            (ids,) = session.encode(samples[:, push * size : (push + 1) * size], everyone)
            (sound,) = session.decode(ids[None], everyone)
            codes.append(ids.copy())  # what comes out is a view of an array of JAX
            if push >= pushes - pushes // MINUTES:
                heard.append(sound.copy())
            if push + 1 in (pushes // MINUTES, pushes):
                watched.append((array_bytes(), resident_bytes(), programs(caplog)))
    (arrays, resident, made), (arrays_late, resident_late, made_late) = watched
    print(f"{name}: {arrays} and {arrays_late} bytes of arrays, {resident / MIB:.1f} and {resident_late / MIB:.1f} MiB")
    assert arrays_late == arrays > 0
    assert made_late == made > 0, "a program was made after the first minute"
    assert resident_late - resident < 16 * MIB
    heard.extend(session.finish(everyone))
    compare(config, variables, samples, np.concatenate(codes), np.concatenate(heard))


def recording(config, step_s=0.1):
    """Ten minutes `[1, N]` of tones and hisses, others every tenth of a second, from whispers to shouts."""
    rng, each = np.random.default_rng(0), round(step_s * config.rate_hz)
    steps = round(MINUTES * 60 / step_s)
    hz = rng.uniform(80.0, config.rate_hz / 2, (steps, 1))
    tones = np.sin(2 * np.pi * hz * np.arange(each) / config.rate_hz)
    loud = 10 ** rng.uniform(-3.0, 0.0, (2, steps, 1))
    return (loud[0] * tones + loud[1] * rng.standard_normal((steps, each))).astype(np.float32).reshape(1, -1)


def compare(config, variables, samples, codes, heard):
    """All codes are those of the whole recording, the sound of the last minute is that of its codes."""
    codec = config.make()
    whole = jax.jit(lambda x: codec.apply(variables, x, method="encode"))(jnp.asarray(samples))
    np.testing.assert_array_equal(codes, np.asarray(whole.ids[0]))
    made = np.asarray(jax.jit(lambda ids: codec.apply(variables, ids, method="decode"))(whole))[0]
    loudest = np.abs(made).max()
    np.testing.assert_allclose(heard, made[-len(heard) :], atol=1e-5 * loudest)
    assert len(heard) >= 60 * config.rate_hz
    assert len(np.unique(codes)) > 10 and made.std() > 0.05


def array_bytes():
    """Of all arrays of JAX that are alive."""
    gc.collect()
    return sum(array.nbytes for array in jax.live_arrays())


def resident_bytes():
    """Of this process; 0 where the system does not tell."""
    told = Path("/proc/self/statm")
    return int(told.read_text().split()[1]) * resource.getpagesize() if told.is_file() else 0


def programs(caplog):
    """How many were compiled so far."""
    return sum(line.startswith("Compiling ") for line in caplog.messages)
