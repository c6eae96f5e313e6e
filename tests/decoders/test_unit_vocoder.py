"""Unit vocoders of both generators: padding, batches, gradients, half precision, predictors, refusals."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from slm_jax.core.config import from_json
from slm_jax.core.errors import UserError
from slm_jax.core.trees import count_parameters
from slm_jax.decoders.hifigan import HiFiGANConfig, hifigan_v1, hifigan_v2, hifigan_v3
from slm_jax.decoders.istft_vocoder import ISTFTVocoderConfig, analysed, synthesised
from slm_jax.decoders.predictors import PredictorConfig
from slm_jax.decoders.unit_vocoder import UnitVocoderConfig, initialise

SMALL = {"widths": (12, 8), "blocks": (1, 0), "upsample": (2,), "n_fft": 32, "istft_hop": 8}
HIFIGAN = HiFiGANConfig(
    upsample=(4,), upsample_kernels=(8,), channels=8, resblock_kernels=(3,), resblock_dilations=((2,),)
)
GENERATORS = {
    "hifigan": HIFIGAN,
    "hifigan with light blocks": HIFIGAN.replace(resblock="2"),
    "istft": ISTFTVocoderConfig(excitation="none", **SMALL),
    "harmonic istft": ISTFTVocoderConfig(**SMALL),
}


def settings(generator, **changes):
    base = UnitVocoderConfig(
        units=10,
        unit_dim=6,
        speakers=3,
        speaker_dim=4,
        generator=generator,
        pitch_predictor=PredictorConfig(outputs=2, width=6, dropout=0.1),
    )
    return base.replace(**changes)


def made(config, seed=0):
    """The module and normal weights of its shapes: loud enough that every layer matters, and nothing to compile."""
    vocoder, rng = config.make(), np.random.default_rng(seed)
    shapes = nn.meta.unbox(jax.eval_shape(lambda key: initialise(vocoder, key), jax.random.key(0)))
    return vocoder, jax.tree.map(lambda leaf: jnp.asarray(rng.normal(scale=0.3, size=leaf.shape), jnp.float32), shapes)


def inputs(frames=9):
    keys = jax.random.split(jax.random.key(5), 3)
    voiced = jax.random.bernoulli(keys[1], 0.7, (2, frames))
    return {
        "units": jax.random.randint(keys[0], (2, frames), 0, 10),
        "voiced": voiced,
        "f0_hz": jnp.where(voiced, 120.0 + 80.0 * jax.random.uniform(keys[2], (2, frames)), 0.0),
        "speaker": jnp.array([0, 2]),
    }


@pytest.mark.parametrize("name", list(GENERATORS))
def test_garbage_in_the_padding_has_no_effect_and_a_row_is_what_it_is_alone(name):
    config = settings(GENERATORS[name])
    vocoder, variables = made(config)
    apply = jax.jit(lambda batch, mask: vocoder.apply(variables, mask=mask, **batch))
    batch, mask = inputs(), jnp.arange(9) < jnp.array([[9], [6]])
    together = apply(batch, mask)
    spoiled = batch | {
        "units": batch["units"].at[1, 6:].set(3),
        "f0_hz": batch["f0_hz"].at[1, 6:].set(7000.0),
        "voiced": batch["voiced"].at[1, 6:].set(True),
    }
    alone = apply({name: value[1:, :6] if value.ndim > 1 else value[1:] for name, value in batch.items()}, mask[1:, :6])
    end = 6 * config.hop
    assert together.shape == (2, 9 * config.hop)
    assert float(jnp.std(together[1, :end])) > 1e-3
    assert not together[1, end:].any()
    scale = float(jnp.abs(together).max())
    np.testing.assert_allclose(apply(spoiled, mask)[1, :end] / scale, together[1, :end] / scale, atol=1e-5)
    np.testing.assert_allclose(alone[0] / scale, together[1, :end] / scale, atol=1e-4)


@pytest.mark.parametrize("name", ["hifigan", "harmonic istft"])
def test_in_half_precision_samples_and_gradients_are_finite_and_reach_every_leaf(name):
    config = settings(GENERATORS[name].replace(dtype="bfloat16"), durations=None, pitch_predictor=None)
    vocoder, variables = made(config)

    def loss(variables):
        samples = vocoder.apply(variables, **inputs())
        return jnp.sum(jnp.square(samples - 0.1)), samples

    (_, samples), gradients = jax.jit(jax.value_and_grad(loss, has_aux=True))(variables)
    assert samples.dtype == jnp.float32
    for leaf in jax.tree.leaves((samples, gradients)):
        assert bool(jnp.isfinite(leaf).all())
        assert bool(leaf.any())


def test_units_f0_and_speaker_each_change_the_sound():
    vocoder, variables = made(settings(GENERATORS["hifigan"]))
    apply = jax.jit(lambda batch: vocoder.apply(variables, **batch))
    batch = inputs()
    reference = apply(batch)
    other_units = (batch["units"] + 1) % 10
    for name, value in {"units": other_units, "f0_hz": batch["f0_hz"] * 1.5, "speaker": jnp.array([1, 1])}.items():
        assert float(jnp.abs(apply(batch | {name: value}) - reference).max()) > 1e-3


def test_synthesise_predicts_what_is_not_given():
    config = settings(GENERATORS["harmonic istft"])
    vocoder, variables = made(config)
    speak = jax.jit(
        lambda **given: vocoder.apply(
            variables, units, mask, 40, speaker=jnp.array([0, 1]), method=vocoder.synthesise, **given
        )
    )
    units, mask = jnp.array([[1, 2, 3, 4], [5, 6, 7, 0]]), jnp.array([[True] * 4, [True] * 3 + [False]])
    durations = jnp.array([[2, 3, 1, 4], [5, 1, 1, 9]])
    out = speak(durations=durations)
    assert (out.mask.sum(1) // config.hop).tolist() == [10, 7]
    assert out.samples.shape == (2, 40 * config.hop)
    predicted = jax.jit(lambda: vocoder.apply(variables, units, mask, method=vocoder.log_durations))()
    frames = np.maximum(1, np.round(np.expm1(np.asarray(predicted)))) * np.asarray(mask)
    assert (speak().mask.sum(1) // config.hop).tolist() == frames.sum(1).tolist()


def test_parameter_counts_of_the_published_shapes():
    def count(config, width):
        shapes = jax.eval_shape(config.make().init, jax.random.key(0), jnp.zeros((1, 2, width)))
        return count_parameters(shapes)

    plain = {"weight_norm": False}
    assert count(hifigan_v1().replace(**plain), 80) == 13_926_017
    assert round(count(hifigan_v2().replace(**plain), 80) / 1e6, 2) == 0.93
    assert round(count(hifigan_v3().replace(**plain), 80) / 1e6, 2) == 1.46
    vocoder = UnitVocoderConfig(units=500, pitch=False, pitch_predictor=None, generator=HiFiGANConfig(**plain)).make()
    shapes = jax.eval_shape(lambda key: initialise(vocoder, key), jax.random.key(0))
    assert round(count_parameters(shapes) / 1e6, 2) == 13.41


def test_inverse_stft_is_exact_inside():
    samples = jax.random.normal(jax.random.key(0), (2, 160))
    back = synthesised(analysed(samples, 64, 16), None, 64, 16)
    np.testing.assert_allclose(back[:, 16:-16], samples[:, 16:-16], atol=1e-4)


def test_config_round_trip_and_refusals():
    config = settings(GENERATORS["harmonic istft"])
    assert from_json(config.to_json()) == config
    for wrong in (
        lambda: config.replace(pitch=False),
        lambda: HIFIGAN.replace(upsample_kernels=(7, 4)),
        lambda: HIFIGAN.replace(resblock="3"),
        lambda: ISTFTVocoderConfig(widths=(8,)),
        lambda: ISTFTVocoderConfig(excitation="sine"),
        lambda: PredictorConfig(dropout=1.0),
        lambda: settings(HIFIGAN, durations=PredictorConfig(outputs=2)),
    ):
        with pytest.raises(UserError):
            wrong()
    vocoder, variables = made(config)
    batch = inputs()
    for missing in ("f0_hz", "speaker"):
        with pytest.raises(UserError, match=missing):
            vocoder.apply(variables, **{name: value for name, value in batch.items() if name != missing})
