"""Units as rows of a language model's own table: nothing stands between."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from slm_jax.adapters.rows import RowsConfig
from slm_jax.assemblies.speech_aware_lm import SpeechAwareLMConfig
from slm_jax.core.contracts import Adapter
from slm_jax.core.errors import UserError
from slm_jax.core.types import Frames
from slm_jax.encoders.unit_embedding import UnitEmbeddingConfig
from slm_jax.sequence_models.decoder_config import DecoderConfig
from tests.contracts.checks import random_params
from tests.shapes import DECODER

WORDS, UNITS = DECODER.vocabulary, 5


def test_frames_come_out_as_they_went_in():
    config, values = RowsConfig(width=3), jnp.arange(12.0).reshape(1, 4, 3)
    frames, module = Frames(values, jnp.array([[True, True, True, False]])), config.make()
    assert isinstance(module, Adapter) and config.frames_out(7) == 7
    out = module.apply({}, frames)
    np.testing.assert_array_equal(out.values, values)
    np.testing.assert_array_equal(out.mask, frames.mask)
    with pytest.raises(UserError, match="width is 4: what comes in has 3 channels"):
        RowsConfig(width=4).make().apply({}, frames)


@pytest.mark.parametrize("tied", [True, False])
def test_it_is_the_language_model_with_a_larger_table(tied):
    """Ids of units behind those of words, read by one decoder; its logits of words are ours."""
    lm = DECODER.replace(tied_head=tied)
    encoder = UnitEmbeddingConfig(units=UNITS, width=lm.width)
    model = SpeechAwareLMConfig(encoders=(encoder,), adapter=RowsConfig(width=lm.width), lm=lm).make()
    units, words = jnp.array([[[4, 0, 2, 2]]]), jnp.array([[7, 0, 0, 0, 0, 9]])
    at, real = jnp.array([[-1, 0, 1, 2, 3, -1]]), jnp.ones((1, 6), bool)
    inputs = (units, jnp.ones(units.shape, bool), words, at, real)
    params = random_params(model, jax.random.key(0), *inputs)
    ours = jax.jit(model.apply)({"params": params}, *inputs)
    larger: DecoderConfig = lm.replace(vocabulary=WORDS + UNITS)
    table = jnp.concatenate([params["lm"]["tokens"]["embedding"], params["encoder"]["units"]["embedding"]])
    whole = {**params["lm"], "tokens": {"embedding": table}}
    if not tied:
        whole["head_kernel"] = jnp.pad(params["lm"]["head_kernel"], ((0, 0), (0, UNITS)))
    ids = jnp.array([[7, *(WORDS + unit for unit in (4, 0, 2, 2)), 9]])
    theirs = jax.jit(larger.make().apply)({"params": whole}, ids)
    np.testing.assert_allclose(ours, theirs[..., :WORDS], atol=1e-5)
    assert np.ptp(np.asarray(ours)) > 0.1
