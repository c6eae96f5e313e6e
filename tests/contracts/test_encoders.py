"""The shared contracts, held by every encoder and by what goes around one."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from slm_jax.core.contracts import EncoderConfig
from slm_jax.encoders.chunked import ChunkedEncoderConfig
from slm_jax.encoders.fastconformer import FastConformerConfig
from slm_jax.encoders.layer_states import LayerStatesConfig
from slm_jax.encoders.preemphasised_mel import PreemphasisedMelConfig
from slm_jax.encoders.rolling import RollingEncoderConfig
from slm_jax.encoders.weighted_layers import WeightedLayersConfig
from tests.contracts import checks
from tests.shapes import BEATS, ENCODERS, W2V_BERT, WHISPER

FAST = FastConformerConfig(
    mel=PreemphasisedMelConfig(mels=20), factor=4, channels=4, layers=2, width=16, heads=2, hidden=32, kernel=3
)
TRIMMED = WHISPER.encoder.replace(trim=True)
PLAIN = ENCODERS | {
    "beats": BEATS,
    "w2v_bert": W2V_BERT,
    "fastconformer": FAST,
    "whisper": WHISPER.encoder,
    "whisper, trimmed": TRIMMED,
}
KINDS = PLAIN | {
    "mixture": WeightedLayersConfig(encoder=ENCODERS["log_mel"], norm=True),
    "layers": LayerStatesConfig(encoder=ENCODERS["log_mel"], pool=2, longest=21),
    "rolling": RollingEncoderConfig(encoder=TRIMMED, chunk=1_280, before=640),
    "windows": ChunkedEncoderConfig(encoder=ENCODERS["waveform"], window=1_500),
}
N, SHORT = 3_760, 2_100
SAMPLES = 0.1 * jax.random.normal(jax.random.key(0), (2, N))
MASK = jnp.arange(N) < jnp.array([[N], [SHORT]])


@pytest.fixture(params=KINDS, scope="module")
def part(request: pytest.FixtureRequest) -> tuple:
    """Config, parameters, the jitted encoder, and which frames are real."""
    config = KINDS[request.param]
    params = checks.random_params(config.make(), jax.random.key(2), SAMPLES)
    return config, params, jax.jit(partial(whole, config, params)), partial(frames_of, config)


def whole(config, params, samples, mask):
    return config.make().apply({"params": params}, samples, mask).values


def frames_of(config, mask):
    return jnp.arange(config.frame_count(mask.shape[1])) < config.frame_count(mask.sum(1))[:, None]


def loss(config, params):
    values = whole(config, params, SAMPLES, MASK)
    return jnp.square(jnp.where(frames_of(config, MASK)[..., None], values, 0.0)).mean()


def test_padding_has_no_effect_and_rows_stand_alone(part):
    _, _, run, real = part
    checks.padding_has_no_effect(run, SAMPLES, MASK, garbage=7.0, real=real)
    checks.batched_equals_single(run, SAMPLES, MASK, real=real)
    heard = np.asarray(run(SAMPLES, MASK))[np.asarray(real(MASK))]
    assert np.median(heard.std(axis=0)) > 0.1, "what hears nothing would pass as well"


def test_encoders_can_be_exchanged(part):
    """What the config foretells is what comes, and everyone takes the same arguments."""
    config, params, _, real = part
    assert isinstance(config, EncoderConfig)
    module, frames = config.make(), config.frame_count(N)

    def encode(**settings):
        return module.apply({"params": params}, SAMPLES, MASK, deterministic=True, **settings)

    out = jax.eval_shape(partial(encode, collect=True))
    assert out.values.shape == (2, frames, config.width)
    assert out.hidden.shape == (config.layers + 1, 2, frames, config.width)
    assert 0.5 < frames * config.hop / N < 1.5
    assert jax.eval_shape(partial(encode, layer=min(1, config.layers))).values.shape == out.values.shape
    assert jax.eval_shape(encode).hidden is None
    np.testing.assert_array_equal(jax.jit(lambda: encode().mask)(), real(MASK))


@pytest.mark.parametrize("part", ["waveform"], indirect=True)  # each kind of layer once
def test_compiled_equals_interpreted(part):
    checks.jit_equals_eager(part[2], SAMPLES, MASK)


@pytest.mark.parametrize("part", PLAIN, indirect=True)
def test_unrolled_equals_scanned_and_recomputed(part):
    config, params, _, _ = part
    unrolled, scanned = config.replace(unroll=True), config.replace(unroll=False, remat=True)
    checks.same_function(partial(loss, unrolled), partial(loss, scanned), params)


@pytest.mark.parametrize("part", [*PLAIN, "mixture"], indirect=True)
def test_bfloat16_and_its_gradients_are_finite(part):
    config, params, run, real = part
    inner = config.encoder if isinstance(config, WeightedLayersConfig) else config
    low = inner.replace(dtype="bfloat16")
    low = low if config is inner else config.replace(encoder=low)
    checks.runs_in_bfloat16(jax.jit(partial(whole, low, params)), run, SAMPLES, MASK, real=real)
    # the mixture does not read the norm after the last layer
    unread = ["mask_embedding", "positions", *(() if config is inner else ["final_norm"])]
    checks.gradients_are_finite(partial(loss, low), params, without=unread)
