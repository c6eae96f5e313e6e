"""Whisper's encoder: windows, frames of a trimmed clip, layers, positions."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from slm_jax.core.errors import UserError
from slm_jax.encoders import whisper
from slm_jax.encoders.span_masks import SpanMasksConfig
from slm_jax.encoders.whisper import WhisperEncoderConfig
from tests.contracts.checks import assert_close, random_params
from tests.shapes import WHISPER

WHOLE = WHISPER.encoder.replace(layers=1)
TRIMMED = WHOLE.replace(trim=True)
HOP, WINDOW = 320, 5_120
CLIPS = 0.1 * jax.random.normal(jax.random.key(0), (2, WINDOW))


@pytest.fixture(scope="module")
def params():
    return random_params(WHOLE.make(), jax.random.key(1), CLIPS)


def run(config, params, samples, mask=None, **asked):
    return jax.jit(lambda s, m: config.make().apply({"params": params}, s, m, **asked))(samples, mask)


def test_frames_of_a_window_and_of_a_clip():
    assert (WHOLE.hop, WHOLE.window, WHOLE.frame_count(1)) == (HOP, WINDOW, 16)
    assert WHOLE.frame_count(np.array([1, 400])).tolist() == [16, 16]
    lengths = np.array([1, 320, 321, 640, WINDOW])
    assert TRIMMED.frame_count(lengths).tolist() == [1, 1, 2, 2, 16]
    assert [TRIMMED.frame_count(int(n)) for n in lengths] == [1, 1, 2, 2, 16]
    assert (WhisperEncoderConfig().window, WhisperEncoderConfig().frame_count(5)) == (480_000, 1_500)


LENGTHS = (1, 159, 320, 321, 1_000, *(WINDOW - n for n in (641, 640, 481, 320, 319, 1, 0)))


@pytest.fixture(scope="module")
def differs(params):
    """How far the frames of a clip alone are from those of a whole window that hides what is behind it."""
    hidden = jax.jit(lambda mask: TRIMMED.make().apply({"params": params}, CLIPS[:1], mask))

    def differs(length):
        whole = hidden(jnp.arange(WINDOW)[None] < length)
        alone, frames = run(TRIMMED, params, CLIPS[:1, :length]), TRIMMED.frame_count(length)
        assert alone.mask.shape == (1, frames) and whole.mask.sum() == frames
        return float(np.abs(np.asarray(alone.values[0] - whole.values[0, :frames])).max())

    return differs


@pytest.mark.parametrize("length", LENGTHS)
def test_a_trimmed_clip_has_the_frames_of_a_whole_window_that_hides_what_is_behind_it(differs, length):
    assert differs(length) < 1e-5


def test_without_silence_behind_it_the_last_frame_would_be_another(differs, monkeypatch):
    monkeypatch.setattr(whisper, "MARGIN", 0)
    assert min(differs(length) for length in (1_001, WINDOW - 320)) > 1e-3


def test_a_whole_window_hears_its_silence_and_a_trimmed_clip_does_not(params):
    whole, trimmed = (run(config, params, CLIPS[:, :2_000]) for config in (WHOLE, TRIMMED))
    assert whole.values.shape == (2, 16, 16) and trimmed.values.shape == (2, 7, 16)
    np.testing.assert_allclose(whole.features[:, :7], trimmed.features, atol=1e-5)
    assert np.abs(np.asarray(whole.values[:, :7] - trimmed.values)).max() > 1e-2
    assert bool(whole.mask.all())


def test_a_clip_is_filled_up_with_silence(params):
    short = run(WHOLE, params, CLIPS[:, :2_000])
    padded = run(WHOLE, params, jnp.pad(CLIPS[:, :2_000], ((0, 0), (0, WINDOW - 2_000))))
    np.testing.assert_allclose(short.values, padded.values, atol=1e-5)


def test_layers_by_number_and_all_at_once():
    config = WHISPER.encoder.replace(trim=True)
    params = random_params(config.make(), jax.random.key(1), CLIPS)
    every = run(config, params, CLIPS, collect=True)
    assert every.hidden.shape == (3, 2, 16, 16)
    for layer in (0, 2):
        one = run(config, params, CLIPS, layer=layer)
        assert_close(one.values, every.hidden[layer], 1e-5)
        assert one.hidden is None
    assert_close(every.hidden[0], every.features + params["positions"], 1e-6)
    last = np.asarray(every.hidden[2])
    normed = (last - last.mean(-1, keepdims=True)) / np.sqrt(last.var(-1, keepdims=True) + 1e-5)
    assert_close(every.values, normed * params["final_norm"]["scale"] + params["final_norm"]["bias"], 1e-4)


def test_positions_are_born_as_sinusoids_and_stay_as_they_are():
    config = TRIMMED.replace(width=16)
    born = jax.eval_shape(config.make().init, jax.random.key(0), CLIPS)["params"]["positions"]
    assert born.value.shape == (16, 16)
    made = jax.jit(lambda: config.make().init(jax.random.key(0), CLIPS)["params"]["positions"].value)()
    rates = np.exp(-np.log(10_000) / 7 * np.arange(8))
    angles = np.arange(16)[:, None] * rates
    np.testing.assert_allclose(made, np.concatenate([np.sin(angles), np.cos(angles)], 1), atol=1e-5)
    params = random_params(config.make(), jax.random.key(1), CLIPS)
    gradient = jax.jit(jax.grad(lambda p: jnp.square(config.make().apply({"params": p}, CLIPS).values).mean()))(params)
    assert not np.asarray(gradient["positions"]).any() and np.asarray(gradient["conv_0"]["kernel"]).any()


def test_training_drops_and_skips():
    config = WHOLE.replace(dropout=0.3, layer_drop=0.5)
    params = random_params(config.make(), jax.random.key(1), CLIPS)
    apply = jax.jit(partial(config.make().apply, {"params": params}, deterministic=False))
    first, again, other = (apply(CLIPS, rngs={"dropout": jax.random.key(k)}).values for k in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert np.abs(np.asarray(first - other)).max() > 1e-2


@pytest.mark.parametrize("count", [0, WINDOW + 1])
def test_no_samples_and_more_than_a_window_are_refused(count):
    with pytest.raises(UserError, match=f"samples of a row is {count}: must be 1 to 5120"):
        jax.eval_shape(WHOLE.make().init, jax.random.key(0), jnp.zeros((1, count)))


def test_training_hides_mel_frames_and_bands():
    """Without masks training is what serving is; what is masked is drawn anew each time."""
    config = TRIMMED.replace(masks=SpanMasksConfig(share=0.2, span=4, channel_share=0.2, channel_span=2, least=1))
    params = random_params(WHOLE.make(), jax.random.key(1), CLIPS)

    def encode(config, number=None):
        drawn = {} if number is None else {"deterministic": False, "rngs": {"dropout": jax.random.key(number)}}
        return np.asarray(config.make().apply({"params": params}, CLIPS, **drawn).values)

    np.testing.assert_array_equal(encode(TRIMMED, 0), encode(TRIMMED))
    np.testing.assert_array_equal(encode(config), encode(TRIMMED))
    assert np.abs(encode(config, 0) - encode(config)).max() > 0.01
    assert np.abs(encode(config, 0) - encode(config, 1)).max() > 0.01


def test_whole_mel_frames_are_fewer_and_the_norm_can_be_left_to_others(params):
    """The frames of a clip that ends within a mel frame; what comes of them then is the last layer's output."""
    fewer = TRIMMED.replace(mel_frames="whole")
    assert [fewer.frame_count(n) for n in (159, 160, 320, 321, 480, 640)] == [0, 1, 1, 1, 2, 2]
    assert [TRIMMED.frame_count(n) for n in (159, 160, 320, 321, 480, 640)] == [1, 1, 1, 2, 2, 2]
    bare = {name: tree for name, tree in params.items() if name != "final_norm"}
    raw = WHOLE.replace(final_norm=False).make().apply({"params": bare}, CLIPS).values
    np.testing.assert_array_equal(raw, WHOLE.make().apply({"params": params}, CLIPS, layer=1).values)


BAD = {
    "mel_frames": ("some", "must be one of begun, whole"),
    "heads": (3, "must divide the width 16"),
    "max_frames": (0, "at least 1"),
    "dropout": (1.0, r"in \[0, 1\)"),
}


@pytest.mark.parametrize("field", BAD)
def test_bad_shapes_are_refused(field):
    value, rule = BAD[field]
    with pytest.raises(UserError, match=f"{field} is {value!r}: .*{rule}"):
        WHOLE.replace(**{field: value})
