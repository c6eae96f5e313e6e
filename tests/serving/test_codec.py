"""Codecs push by push: as whole recordings, whatever the pushes, in rows that start, rest and begin anew alone."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from slm_jax.assemblies.codec import CodecConfig
from slm_jax.core.errors import UserError
from slm_jax.decoders.dac import DACDecoderConfig
from slm_jax.encoders.dac import DACEncoderConfig
from slm_jax.quantizers.codebooks import CodebookConfig
from slm_jax.quantizers.residual import ResidualVQConfig
from slm_jax.serving.codec import CodecSession
from tests.codecs import CODECS, drawn_variables

FRAMES, BATCH = 30, 3
LOUDNESS = {"over spectra": 30.0}
"""Log-mel bands of noise this loud lie around 0: quieter noise is one constant with a little on top, and few codes."""


@pytest.fixture(
    params=[
        "as Mimi",
        *(pytest.param(name, marks=pytest.mark.slow(seconds=20)) for name in CODECS if name != "as Mimi"),
    ],
    scope="module",
)
def case(request):
    """Config, variables, sound, its codes as a whole, and the sound of those as a whole."""
    config = CODECS[request.param]
    noise = np.random.default_rng(0).standard_normal((BATCH, FRAMES * config.hop))
    samples = (LOUDNESS.get(request.param, 1.0) * noise).astype(np.float32)
    variables = drawn_variables(config)
    ids, made = jax.jit(lambda samples: whole(config, variables, samples))(jnp.asarray(samples))
    assert len(np.unique(ids)) > 12 and float(np.std(made)) > 0.05
    return config, variables, samples, np.asarray(ids), np.asarray(made)


def whole(config, variables, samples):
    codec = config.make()
    codes = codec.apply(variables, samples, method="encode")
    return codes.ids, codec.apply(variables, codes, method="decode")


def test_any_pushes_give_what_the_whole_gives(case):
    config, variables, samples, ids, made = case
    session, everyone = CodecSession(config, variables, BATCH), np.ones(BATCH, bool)
    codes, sounds, start = [[] for _ in range(BATCH)], [[] for _ in range(BATCH)], 0
    for size in (1, 2, 3, 7, 1, 2, 3, 7, 4):
        stop = start + size
        part = session.encode(samples[:, start * config.hop : stop * config.hop], everyone)
        sound = session.decode(ids[:, start:stop], everyone)
        for row in range(BATCH):
            codes[row].append(part[row])
            sounds[row].append(sound[row])
        start = stop
    for row, rest in enumerate(session.finish(everyone)):
        assert len(rest) == config.late
        sounds[row].append(rest)
    assert start == FRAMES
    np.testing.assert_array_equal(np.stack([np.concatenate(row) for row in codes]), ids)
    np.testing.assert_allclose(np.stack([np.concatenate(row) for row in sounds]), made, atol=1e-5 * np.abs(made).max())


def test_rows_start_rest_and_begin_anew_alone(case):
    config, variables, samples, ids, made = case
    session, rng = CodecSession(config, variables, BATCH), np.random.default_rng(1)
    place, codes, sounds = np.zeros(BATCH, int), [[] for _ in range(BATCH)], [[] for _ in range(BATCH)]
    for turn in range(40):
        active = (rng.random(BATCH) < 0.6) & (place < FRAMES)
        at = np.minimum(place, FRAMES - 1)
        here = np.stack([samples[row, i * config.hop : (i + 1) * config.hop] for row, i in enumerate(at)])
        part = session.encode(here, active)
        sound = session.decode(np.stack([ids[row, i : i + 1] for row, i in enumerate(at)]), active)
        for row in np.flatnonzero(active):
            codes[row].append(part[row])
            sounds[row].append(sound[row])
        place += active
        if turn == 12:  # one row begins its recording anew, the others go on
            anew = np.arange(BATCH) == 1
            session.reset(anew)
            place[1], codes[1], sounds[1] = 0, [], []
    for row in range(BATCH):
        found = np.concatenate(codes[row])
        late = config.startup - 1  # what a row has not had enough for is held back
        assert len(found) == place[row] if place[row] > late else len(found) == 0
        np.testing.assert_array_equal(found, ids[row, : len(found)])
        sound = np.concatenate(sounds[row])
        np.testing.assert_allclose(sound, made[row, : len(sound)], atol=1e-5 * np.abs(made).max())


def test_what_cannot_be_heard_is_refused_and_the_session_goes_on(case):
    config, variables, samples, ids, _ = case
    session, everyone = CodecSession(config, variables, BATCH), np.ones(BATCH, bool)
    broken = samples[:, : config.hop].copy()
    broken[2, 3] = np.nan
    with pytest.raises(UserError, match=r"samples of rows is \[2\]: must be finite"):
        session.encode(broken, everyone)
    with pytest.raises(UserError, match=r"push is .*a multiple of"):
        session.encode(samples[:, : config.hop + 1], everyone)
    with pytest.raises(UserError, match=r"codes of rows is \[0, 1, 2\]: must be in \[0, 32\)"):
        session.decode(ids[:, :1] + 32, everyone)
    with pytest.raises(UserError, match=r"codes is .*must be"):
        session.decode(ids[:, :1, :1], everyone)
    found = session.encode(samples, everyone)
    np.testing.assert_array_equal(np.stack(found), ids)


def test_a_codec_that_looks_ahead_is_refused():
    sides = {"channels": 4, "width": 16, "strides": (2, 4)}
    config = CodecConfig(
        encoder=DACEncoderConfig(**sides),
        decoder=DACDecoderConfig(**sides),
        quantizer=ResidualVQConfig(width=16, books=2, codebook=CodebookConfig(size=8, width=16)),
    )
    with pytest.raises(UserError, match="it is not causal"):
        CodecSession(config, {}, BATCH)
