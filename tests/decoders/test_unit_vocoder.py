"""Unit vocoders: inputs, predictors, sizes, refusals (padding, batches and half precision: `tests/contracts`)."""

from functools import partial

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
from slm_jax.decoders.length import frames_from_log
from slm_jax.decoders.predictors import PredictorConfig
from slm_jax.decoders.unit_vocoder import UnitVocoderConfig, initialise

SMALL = {"widths": (12, 8), "blocks": (1, 0), "upsample": (2,), "n_fft": 32, "istft_hop": 8}
HIFIGAN = HiFiGANConfig(
    upsample=(4,), upsample_kernels=(8,), channels=8, resblock_kernels=(3,), resblock_dilations=((2,),)
)
GENERATORS = {
    "hifigan": HIFIGAN,
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


def test_units_f0_and_speaker_each_change_the_sound():
    vocoder, variables = made(settings(GENERATORS["hifigan"]))
    apply = jax.jit(lambda batch: vocoder.apply(variables, **batch))
    batch = inputs()
    reference = apply(batch)
    other_units = (batch["units"] + 1) % 10
    for name, value in {"units": other_units, "f0_hz": batch["f0_hz"] * 1.5, "speaker": jnp.array([1, 1])}.items():
        assert float(jnp.abs(apply(batch | {name: value}) - reference).max()) > 1e-3


def test_language_changes_the_sound_and_voicing_can_be_left_out():
    config = settings(GENERATORS["hifigan"], languages=3, language_dim=2, voicing=False)
    vocoder, variables = made(config)
    variables = jax.tree.map(lambda leaf: 3 * leaf, variables)  # the language's two channels among thirteen
    assert config.input_width == 6 + 1 + 4 + 2
    assert variables["params"]["language"]["embedding"].shape == (3, 2)
    apply = jax.jit(lambda language: vocoder.apply(variables, **inputs(), language=language))
    both, other = apply(jnp.array([0, 2])), apply(jnp.array([1, 2]))
    assert float(jnp.abs(both - other)[0].max()) > 1e-3
    np.testing.assert_array_equal(both[1], other[1])
    with pytest.raises(UserError, match="language is None: this vocoder knows 3 languages"):
        vocoder.apply(variables, **inputs())


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


def test_predictions_are_the_same_to_the_bit_in_any_batch_and_padding_and_those_of_the_whole():
    vocoder, variables = made(settings(GENERATORS["harmonic istft"], durations=PredictorConfig(kernel=4)), seed=3)
    units = jax.random.randint(jax.random.key(0), (3, 150), 0, 10)
    mask, speaker = jnp.arange(150) < jnp.array([[150], [70], [9]]), jnp.array([0, 1, 2])

    @partial(jax.jit, static_argnames="way")
    def predict(way, *inputs):
        return vocoder.apply(variables, *inputs, method=getattr(vocoder, way))

    f0_hz, voiced = predict("predicted_f0", units, mask, speaker)
    frames = predict("predicted_frames", units, mask)
    assert 0 < int(voiced.sum()) < int(mask.sum())
    for row, (length, padded) in enumerate([(150, 150), (70, 90), (9, 9)]):
        one = units[row : row + 1, :padded], mask[row : row + 1, :padded]
        alone, alone_voiced = predict("predicted_f0", *one, speaker[row : row + 1])
        np.testing.assert_array_equal(alone[0, :length], f0_hz[row, :length])
        np.testing.assert_array_equal(alone_voiced[0, :length], voiced[row, :length])
        np.testing.assert_array_equal(predict("predicted_frames", *one)[0, :length], frames[row, :length])
    log_f0, logit = predict("pitch_of", units, mask, speaker)
    np.testing.assert_array_equal(voiced, (logit > 0) & mask)
    c = vocoder.config
    whole = jnp.exp(jnp.clip(log_f0, -4.0, 4.0) * c.log_f0_std + c.log_f0_mean)
    np.testing.assert_allclose(f0_hz, jnp.where(voiced, whole, 0.0), rtol=1e-5)
    log_frames = predict("log_durations", units, mask)
    np.testing.assert_array_equal(frames, frames_from_log(log_frames, mask))


def test_speech_with_predicted_f0_and_durations_is_in_a_batch_what_it_is_alone():
    vocoder, variables = made(settings(GENERATORS["harmonic istft"]))
    units = jax.random.randint(jax.random.key(0), (2, 20), 0, 10)
    mask, speaker = jnp.arange(20) < jnp.array([[20], [13]]), jnp.array([0, 2])

    @partial(jax.jit, static_argnums=2)
    def speak(units, mask, capacity, speaker):
        return vocoder.apply(variables, units, mask, capacity, speaker=speaker, method=vocoder.synthesise)

    frames = np.asarray(vocoder.apply(variables, units, mask, method=vocoder.predicted_frames)).sum(1)
    together = speak(units, mask, int(frames.max()) + 7, speaker)
    scale = max(1.0, float(jnp.abs(together.samples).max()))
    for row, (size, count) in enumerate(zip((20, 13), frames, strict=True)):
        one = slice(row, row + 1)
        alone = speak(units[one, :size], mask[one, :size], int(count), speaker[one])
        end = int(count) * vocoder.config.hop
        assert int(together.mask[row].sum()) == end
        np.testing.assert_allclose(together.samples[row, :end] / scale, alone.samples[0] / scale, atol=1e-5)


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
