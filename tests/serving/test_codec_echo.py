"""One's own voice through a codec, push by push: what whole recordings give, later by what the codec waits for."""

import jax
import numpy as np
import pytest

from slm_jax.assemblies.codec import CodecConfig
from slm_jax.assemblies.codec_tokenizer import CodecTokenizer
from slm_jax.core.contracts import Opens, Session, Spoken
from slm_jax.core.errors import UserError
from slm_jax.decoders.dac import DACDecoderConfig
from slm_jax.encoders.dac import DACEncoderConfig
from slm_jax.quantizers.codebooks import CodebookConfig
from slm_jax.quantizers.residual import ResidualVQConfig
from slm_jax.serving.codec_echo import CodecEcho
from slm_jax.serving.codec_system import CodecSystem
from tests.codecs import CODECS, drawn_variables

PUSHES, BATCH, FRAMES = 7, 3, 4
NAMES = [name if name == "as Mimi" else pytest.param(name, marks=pytest.mark.slow(seconds=10)) for name in CODECS]


def opened(name):
    config = CODECS[name]
    session = CodecEcho(config, drawn_variables(config), BATCH, frame_s=FRAMES / config.frames_per_second)
    assert isinstance(session, Session) and session.hop == FRAMES * config.hop
    noise = np.random.default_rng(0).standard_normal((BATCH, PUSHES * session.hop))
    return config, session, (noise * (30 if name == "over spectra" else 1)).astype(np.float32)


def in_one_go(config, samples):
    codec, variables = config.make(), drawn_variables(config)
    codes = codec.apply(variables, samples, method="encode")
    return codec.apply(variables, codes, method="decode")


@pytest.mark.parametrize("name", NAMES)
def test_what_comes_out_is_the_whole_and_a_little_late(name):
    config, session, samples = opened(name)
    everyone = np.ones(BATCH, bool)
    made = [session.push(part, everyone) for part in np.split(samples, PUSHES, axis=1)]
    assert all(isinstance(one, Spoken) and one.texts == ("",) * BATCH for one in made)
    heard = np.concatenate([one.samples for one in made], axis=1)
    waits = (config.startup - 1) * config.hop + config.late  # less than a push, or exactly one
    silent = -(-waits // session.hop) * session.hop
    assert not heard[:, :silent].any()
    whole = np.asarray(jax.jit(lambda samples: in_one_go(config, samples))(samples))
    there = heard[:, silent:]
    np.testing.assert_allclose(there, whole[:, : there.shape[1]], atol=1e-5 * np.abs(whole).max())


@pytest.mark.parametrize("name", NAMES)
def test_rows_rest_and_begin_anew_and_others_hear_no_bit_of_it(name):
    _, session, samples = opened(name)
    parts, first = np.split(samples, PUSHES, axis=1), np.array([True, False, False])
    undisturbed = np.stack([session.push(part, first).samples[0] for part in parts])
    session.reset(np.ones(BATCH, bool))
    found, rng = [], np.random.default_rng(2)
    for part in parts:
        spoken = session.push(part, first | (rng.random(BATCH) < 0.5))
        session.reset(~first & (rng.random(BATCH) < 0.5))
        found.append(spoken.samples[0])
    np.testing.assert_array_equal(np.stack(found), undisturbed)
    assert not session.push(parts[0], ~first).samples[0].any()  # who rests says nothing


def test_what_is_no_push_is_refused_and_a_codec_that_looks_ahead_does_not_open():
    config, session, samples = opened("as Mimi")
    with pytest.raises(UserError, match="samples is"):
        session.push(samples, np.ones(BATCH, bool))
    with pytest.raises(UserError, match="must be finite"):
        session.push(np.full((BATCH, session.hop), np.nan, np.float32), np.ones(BATCH, bool))
    assert isinstance(CodecSystem(CodecTokenizer(config, drawn_variables(config))), Opens)
    sides = {"channels": 4, "width": 16, "strides": (2, 4)}
    ahead = CodecConfig(
        encoder=DACEncoderConfig(**sides),
        decoder=DACDecoderConfig(**sides),
        quantizer=ResidualVQConfig(width=16, books=2, codebook=CodebookConfig(size=8, width=16)),
    )
    with pytest.raises(UserError, match="it is not causal"):
        CodecEcho(ahead, {}, BATCH)
