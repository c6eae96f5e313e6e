"""A codec in an encoder's place: its latents are heard, beside an adapter that learns."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from slm_jax.assemblies.codec import settled
from slm_jax.assemblies.codec_latents import CodecLatentsConfig
from slm_jax.checkpoints.model_folder import save_model
from slm_jax.core.errors import UserError
from slm_jax.core.part_source import PartSource
from slm_jax.training.gradient_stage import trained
from tests.codecs import CODECS, drawn_variables
from tests.training.small_answers import carry_out, context_of, stage_of, write_parts

CODEC = CODECS["over spectra"].replace(
    encoder=CODECS["over spectra"].encoder.replace(n_fft=640, hop=320),
    decoder=CODECS["over spectra"].decoder.replace(n_fft=640, hop=320),
)


def listening(folder, codec=CODEC):
    """The small stage with a codec in the place of its encoder."""
    write_parts(folder)
    save_model(folder / "codec", *settled(codec, drawn_variables(codec, 0)))
    parts = (
        PartSource(path="frozen/encoder", source=str(folder / "codec")),
        PartSource(path="frozen/lm", source=str(folder / "lm")),
    )
    return stage_of(folder, parts=parts)


def test_latents_are_what_the_codec_gives_its_quantizer():
    variables = drawn_variables(CODEC, 0)
    samples = 0.3 * jax.random.normal(jax.random.key(1), (2, 3_300))
    mask = jnp.arange(3_300) < jnp.array([[3_300], [1_500]])
    config = CodecLatentsConfig(codec=CODEC)
    heard = config.make().apply(variables, samples, mask)
    wanted = CODEC.make().apply(variables, samples, mask, method="latents")
    np.testing.assert_array_equal(heard.values, wanted.values)
    np.testing.assert_array_equal(heard.mask, wanted.mask)
    assert heard.values.shape == (2, int(config.frame_count(3_300)), config.width)
    np.testing.assert_array_equal(heard.mask.sum(-1), [config.frame_count(3_300), config.frame_count(1_500)])
    alone = config.make().apply(variables, samples[1:, :1_500]).values
    np.testing.assert_allclose(heard.values[1, : alone.shape[1]], alone[0], atol=1e-5)
    with pytest.raises(UserError, match="layer"):
        config.make().apply(variables, samples, layer=2)


def test_an_adapter_learns_to_read_them(tmp_path):
    stage = listening(tmp_path)
    folder = carry_out(stage, context_of(tmp_path / "run"))
    config, _ = stage.model_of(folder)
    assert config.encoders == (CodecLatentsConfig(codec=CODEC.replace(quantizer=CODEC.quantizer.learnt_by_gradient())),)
    assert set(trained(folder)[1]["params"]) == {"adapter"}


def test_a_codec_of_another_rate_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"codec\.rate_hz is 24000.*16000"):
        carry_out(listening(tmp_path, CODEC.replace(rate_hz=24_000)), context_of(tmp_path / "run"))
