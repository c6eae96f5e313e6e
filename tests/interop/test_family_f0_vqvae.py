"""What the fields of SpiRit-LM's F0 VQ-VAE become, what they may not say, and the way out and back."""

import jax
import numpy as np
import pytest

from slm_jax.assemblies.pitch_codec import PitchCodecConfig
from slm_jax.audio.pitch_features import PitchFeaturesConfig
from slm_jax.core.errors import UserError
from slm_jax.decoders.track import TrackDecoderConfig
from slm_jax.encoders.track import TrackEncoderConfig
from slm_jax.interop.families import FAMILIES, family_for
from slm_jax.interop.model import export, load
from slm_jax.quantizers.codebooks import CodebookConfig
from slm_jax.quantizers.residual import ResidualVQConfig

F0 = FAMILIES["f0_vqvae"]
BOOK = CodebookConfig(size=4, width=6, learning="gradient")
SIDE = {"width": 6, "hidden": 5, "strides": (2, 4), "depth": 3, "growth": 2, "cycle": 2, "scaled": True}
OURS = PitchCodecConfig(
    features=PitchFeaturesConfig(spread=0.25, interpolated=True),
    encoder=TrackEncoderConfig(**SIDE),
    decoder=TrackDecoderConfig(**SIDE, backwards=True),
    quantizer=ResidualVQConfig(width=6, books=1, codebook=BOOK),
)
SHAPE = {"input_emb_width": 2, "output_emb_width": 128, "levels": 1, "downs_t": [4], "strides_t": [2], "width": 32}
RELEASED = {
    "features": "norm_f0_interp,vuv",
    "encoder_params": {**SHAPE, "depth": 4, "m_conv": 1.0, "dilation_growth_rate": 3},
    "decoder_params": {**SHAPE, "depth": 4, "m_conv": 1.0, "dilation_growth_rate": 3},
    "vq_params": {"l_bins": 64, "emb_width": 128, "mu": 0.99, "levels": 1},
}


def test_export_and_import_are_inverse(tmp_path):
    rng = np.random.default_rng(0)
    params = jax.tree.map(lambda leaf: rng.normal(size=leaf.shape).astype(leaf.dtype), F0.abstract(OURS))
    assert family_for(OURS) is F0
    export(OURS, params, tmp_path / "folder")
    config, read = load(tmp_path / "folder")
    assert config == OURS
    jax.tree.map(np.testing.assert_array_equal, read, params)


def test_the_released_fields_mean_hz_around_the_mean_and_voicing_as_it_came_in():
    config = F0.read_config(RELEASED)
    assert config.features == PitchFeaturesConfig(scale="hz", spread=1.0, interpolated=True)
    assert (config.hop, config.codes, config.voiced_above) == (16, 64, 0.5)
    assert config.encoder.dilations == (1, 3, 9, 27) and config.encoder.strides == (2, 2, 2, 2)
    by_speaker = F0.read_config(RELEASED | {"features": "f0,vuv", "speaker_norm": True})
    assert by_speaker.features == PitchFeaturesConfig(scale="hz", spread=1.0)


@pytest.mark.parametrize(
    ("field", "value", "rule"),
    [
        ("features", "f0,vuv", "features is 'f0,vuv'"),
        ("vq_params", {"l_bins": 64, "emb_width": 128, "levels": 2}, "levels is 2"),
        ("encoder_params", {**SHAPE, "downs_t": [2, 2], "strides_t": [2, 2]}, "for one level"),
        ("decoder_params", {**SHAPE, "checkpoint_res": 1}, "checkpoint_res is 1"),
        ("loudness", True, "loudness is True"),
    ],
)
def test_what_we_cannot_honour_is_named(field, value, rule):
    with pytest.raises(UserError, match=rule):
        F0.read_config(RELEASED | {field: value})


def test_codes_that_averages_move_are_no_parameters():
    moving = OURS.replace(quantizer=ResidualVQConfig(width=6, books=1, codebook=BOOK.replace(learning="averages")))
    with pytest.raises(UserError, match="learning"):
        F0.write_config(moving)


def test_parts_that_do_not_fit_each_other_are_refused():
    for change in ({"strides": (2, 2)}, {"width": 7}, {"channels": 1}):
        with pytest.raises(UserError, match=r"hop of the decoder|widths|channels"):
            OURS.replace(decoder=OURS.decoder.replace(**change))
    with pytest.raises(UserError, match="strides"):
        TrackEncoderConfig(strides=(2, 3))
