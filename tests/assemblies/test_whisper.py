"""Whisper as a whole: published sizes, and a decoder that hears its encoder."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from slm_jax.assemblies.whisper import ENGLISH, SIZES, whisper
from slm_jax.core.errors import UserError
from slm_jax.core.trees import count_parameters
from slm_jax.interop.family_whisper import abstract_params
from tests.contracts.checks import random_params
from tests.shapes import WHISPER

PUBLISHED = {
    "tiny": 37_760_640,
    "base": 72_593_920,
    "small": 241_734_912,
    "medium": 763_857_920,
    "large": 1_543_304_960,
    "large-v2": 1_543_304_960,
    "large-v3": 1_543_490_560,
    "large-v3-turbo": 808_878_080,
}
"""Parameters of the checkpoints `openai/whisper-*`, the encoder's positions and the tied head counted once."""
CLIPS = 0.1 * jax.random.normal(jax.random.key(0), (2, 5_120))
MASK = jnp.arange(5_120) < jnp.array([[5_120], [2_100]])
IDS = jax.random.randint(jax.random.key(1), (2, 6), 0, 41)


@pytest.mark.parametrize("size", SIZES)
def test_parameters_are_those_of_the_checkpoints(size):
    assert count_parameters(abstract_params(whisper(size))) == PUBLISHED[size]


@pytest.mark.parametrize("size", ENGLISH)
def test_an_english_model_has_one_token_less(size):
    config = whisper(f"{size}.en")
    assert config.decoder.vocabulary == 51_864
    assert count_parameters(abstract_params(config)) == PUBLISHED[size] - config.decoder.width


def test_a_decoder_hears_its_encoder():
    model, config = WHISPER.make(), WHISPER
    params = random_params(model, jax.random.key(2), CLIPS, IDS)
    read = jax.jit(lambda samples: model.apply({"params": params}, samples, IDS, MASK))
    logits = read(CLIPS)
    assert logits.shape == (2, 6, 41) and logits.dtype == jnp.float32
    frames = jax.jit(lambda s: model.apply({"params": params}, s, MASK, method="encode"))(CLIPS)
    decoder = config.decoder.make()
    again = jax.jit(lambda f: decoder.apply({"params": params["decoder"]}, IDS, context=f))(frames)
    np.testing.assert_allclose(again, logits, atol=1e-5)
    np.testing.assert_allclose(read(jnp.where(MASK, CLIPS, jnp.nan)), logits, atol=1e-6)
    assert np.abs(np.asarray(read(CLIPS[::-1]) - logits)).max() > 1e-2


def test_changes_reach_the_decoder_and_mistakes_are_named():
    assert whisper("tiny", dropout=0.1).decoder.dropout == 0.1
    with pytest.raises(UserError, match=r"Whisper size is 'bass': must be one of .* \(did you mean 'base'"):
        whisper("bass")
    with pytest.raises(UserError, match=r"decoder.context_width is 16: the encoder's 18"):
        WHISPER.replace(encoder=WHISPER.encoder.replace(width=18))
