"""What a `config.json` of GE2E becomes, what it may not say, and the way out and back."""

import jax
import numpy as np
import pytest

from slm_jax.core.errors import UserError
from slm_jax.encoders.speaker import SpeakerEncoderConfig
from slm_jax.interop.families import FAMILIES, family_for, family_of
from slm_jax.interop.model import export, load
from slm_jax.interop.parts import open_source

GE2E = FAMILIES["ge2e"]
TINY = SpeakerEncoderConfig(
    mels=5, width=6, layers=2, embedding=4, frames=40, stretches_per_s=5.0, coverage=0.5, loudness_dbfs=-25.0
)


def test_export_and_import_are_inverse(tmp_path):
    rng = np.random.default_rng(0)
    params = jax.tree.map(lambda leaf: rng.normal(size=leaf.shape).astype(leaf.dtype), GE2E.abstract(TINY))
    assert params["lstm"]["kernel_in_0"].shape == (5, 24)
    assert params["lstm"]["kernel_in_1"].shape == (6, 24)
    assert family_for(TINY) is GE2E
    export(TINY, params, tmp_path / "folder")
    config, read = load(tmp_path / "folder")
    assert config == TINY
    jax.tree.map(np.testing.assert_array_equal, read, params)
    assert open_source(str(tmp_path / "folder"))[0] == TINY


def test_the_settings_of_the_package_are_the_defaults():
    released = {
        "model_type": "ge2e",
        "sampling_rate": 16_000,
        "mel_window_length": 25,
        "mel_window_step": 10,
        "mel_n_channels": 40,
        "model_hidden_size": 256,
        "model_num_layers": 3,
        "model_embedding_size": 256,
        "partials_n_frames": 160,
        "rate": 1.3,
        "min_coverage": 0.75,
        "audio_norm_target_dBFS": -30,
    }
    assert family_of(released) is GE2E
    assert GE2E.read_config(released) == SpeakerEncoderConfig() == GE2E.read_config({"model_type": "ge2e"})
    assert GE2E.write_config(SpeakerEncoderConfig()) == released


def test_everything_unsupported_is_named_at_once():
    wrong = {"sampling_rate": 22_050, "mel_window_step": 12.5, "model_num_layers": 2.5, "vad_window_length": 30}
    with pytest.raises(UserError) as error:
        GE2E.read_config({"model_type": "ge2e", **wrong})
    for name in wrong:
        assert f"{name} is " in str(error.value)
