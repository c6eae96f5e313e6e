"""BEATs apart from parity with PyTorch: tokens of a row, their masks, what is refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from slm_jax.core.config import from_json
from slm_jax.core.errors import UserError
from slm_jax.encoders.beats import BEATsConfig, beats_base, beats_tiny
from slm_jax.encoders.spectrogram_patches import SpectrogramPatches, reference_patch_mask, standardised_fbank
from tests.contracts.checks import random_params

N, SHORT = 8_000, 5_500
"""3 and 2 stretches of 160 ms."""
TINY = beats_tiny().replace(width=16, heads=2, hidden=24, patch_width=8)


@pytest.fixture(scope="module")
def rows() -> tuple[jax.Array, jax.Array]:
    samples = np.random.default_rng(0).standard_normal((2, N)).astype(np.float32) * 0.1
    return jnp.asarray(samples), jnp.arange(N) < jnp.array([[N], [SHORT]])


@pytest.fixture(scope="module")
def params(rows) -> dict:
    return random_params(TINY.make(), jax.random.key(0), rows[0])


def encode(config: BEATsConfig, params: dict, *inputs, **settings):
    return jax.jit(lambda p, *xs: config.make().apply({"params": p}, *xs, **settings))(params, *inputs)


def test_a_padded_row_gives_what_it_gives_alone_at_every_layer(rows, params):
    samples, mask = rows
    together = encode(TINY, params, jnp.where(mask, samples, jnp.nan), mask, collect=True)
    alone = encode(TINY, params, samples[1:, :SHORT], collect=True)
    assert together.mask.sum(1).tolist() == [24, 16]
    assert alone.mask.shape == (1, 16)
    assert bool(alone.mask.all())
    np.testing.assert_allclose(together.hidden[:, 1, :16], alone.hidden[:, 0], atol=1e-5)
    np.testing.assert_allclose(together.values[1, :16], alone.values[0], atol=1e-5)


def test_tokens_are_counted_by_whole_squares():
    """The last square is whole from its last frame's last sample on."""
    config = beats_base()
    assert config.hop == 320
    assert [config.frame_count(n) for n in (0, 2_799, 2_800, 5_359, 5_360, 160_000)] == [0, 0, 8, 8, 16, 496]
    np.testing.assert_array_equal(config.frame_count(jnp.array([2_799, 2_800])), [0, 8])
    assert BEATsConfig(patch=8).frame_count(160_000) == 124 * 16
    assert BEATsConfig(patch=8).hop == 80


def test_tokens_follow_in_time_and_in_one_stretch_from_low_to_high(rows):
    """Each token against the square of the filter bank that it stands for."""
    samples, mask = rows
    module = SpectrogramPatches(5, 16, reference_padding=False)
    params = random_params(module, jax.random.key(1), samples, mask)
    tokens, _ = module.apply({"params": params}, samples, mask)
    fbank, kernel = np.asarray(standardised_fbank(samples)), np.asarray(params["patch_embedding"]["kernel"])
    assert fbank.shape == (2, 48, 128)
    for token, (stretch, band) in {0: (0, 0), 5: (0, 5), 8: (1, 0), 23: (2, 7)}.items():
        square = fbank[0, 16 * stretch : 16 * stretch + 16, 16 * band : 16 * band + 16]
        np.testing.assert_allclose(tokens[0, token], square.reshape(-1) @ kernel, atol=1e-4)


def test_the_reference_mask_is_shared_out_in_order():
    """12 samples over 4 frames and 2 tokens: what is real in part is real; the 13th sample is ignored."""
    lengths = jnp.array([0, 1, 6, 7, 12, 13])
    mask = jnp.arange(13) < lengths[:, None]
    assert reference_patch_mask(mask, 4, 2).sum(1).tolist() == [0, 1, 1, 2, 2, 2]


def test_layers_are_numbered_and_collected(rows, params):
    samples = rows[0][:1]
    whole = encode(TINY, params, samples, collect=True)
    assert whole.hidden.shape == (3, 1, 24, 16)
    assert whole.features.shape == (1, 24, 8)
    for layer in (0, 1):
        np.testing.assert_allclose(encode(TINY, params, samples, layer=layer).values, whole.hidden[layer], atol=1e-5)


def test_dropout_acts_in_training_only(rows, params):
    plain = encode(TINY, params, *rows).values
    module, rngs = TINY.make(), {"dropout": jax.random.key(3)}
    trained = jax.jit(lambda p: module.apply({"params": p}, *rows, deterministic=False, rngs=rngs).values)(params)
    assert np.abs(trained - plain).max() > 0.1


def test_too_short_a_waveform_is_refused():
    with pytest.raises(UserError, match=r"samples is \(1, 2799\).*at least 2800 samples"):
        jax.eval_shape(TINY.make().init, jax.random.key(0), jnp.zeros((1, 2_799)))


@pytest.mark.parametrize("field, value", [("patch", 24), ("patch", 1), ("heads", 5), ("layers", 0), ("dropout", 1.0)])
def test_bad_values_are_refused(field, value):
    with pytest.raises(UserError, match=f"{field} is {value}"):
        TINY.replace(**{field: value})


def test_travels_as_json():
    for config in (beats_base(), TINY):
        assert from_json(config.to_json()) == config
