"""What a `config.json` of a classifier on wav2vec 2.0 and its like becomes, and the way out and back."""

import jax
import numpy as np
import pytest

from slm_jax.core.errors import UserError
from slm_jax.core.part_source import PartSource
from slm_jax.encoders.positional_conv import PositionalConvConfig
from slm_jax.encoders.ssl_classifier import SSLClassifierConfig
from slm_jax.interop.families import FAMILIES, family_for, family_of
from slm_jax.interop.model import export, load
from slm_jax.interop.parts import open_source
from tests.shapes import ENCODERS

WAV2VEC2 = FAMILIES["wav2vec2_classifier"]
NORMED = ENCODERS["waveform"].replace(position=PositionalConvConfig(kernel=4, groups=2))
ENCODER = NORMED.replace(relative_bias=None, layer_drop=0.1)
CONFIG = SSLClassifierConfig(encoder=ENCODER, classes=3, projection=5, window=7)


def test_export_and_import_are_inverse_and_the_encoder_can_be_taken(tmp_path):
    rng = np.random.default_rng(0)
    params = jax.tree.map(lambda leaf: rng.normal(size=leaf.shape).astype(leaf.dtype), WAV2VEC2.abstract(CONFIG))
    assert family_for(CONFIG) is WAV2VEC2
    export(CONFIG, params, tmp_path / "folder")
    config, read = load(tmp_path / "folder")
    assert config == CONFIG.replace(encoder=config.encoder) and config.encoder.width == ENCODER.width
    jax.tree.map(np.testing.assert_array_equal, read, params)
    part = PartSource(path="frozen/encoder", source=str(tmp_path / "folder"), take="encoder")
    encoder, found = part.taken(*open_source(part.source))
    assert encoder == config.encoder and found.keys() == params["encoder"].keys()


def test_wavlms_relative_bias_makes_it_a_wavlm():
    assert family_for(CONFIG.replace(encoder=NORMED)) is FAMILIES["wavlm_classifier"]


def test_other_architectures_are_encoders_as_before():
    hub = WAV2VEC2.write_config(CONFIG)
    assert family_of(hub) is WAV2VEC2
    assert family_of(hub | {"architectures": ["Wav2Vec2ForCTC"]}) is FAMILIES["wav2vec2"]
    assert family_of(hub | {"architectures": None}) is FAMILIES["wav2vec2"]


def test_a_mixture_of_layers_under_the_head_is_refused():
    hub = WAV2VEC2.write_config(CONFIG) | {"use_weighted_layer_sum": True}
    with pytest.raises(UserError, match="use_weighted_layer_sum is True"):
        WAV2VEC2.read_config(hub)


def test_the_usual_number_of_labels_is_two():
    hub = {
        name: value for name, value in WAV2VEC2.write_config(CONFIG).items() if name not in ("id2label", "pool_size")
    }
    assert WAV2VEC2.read_config(hub).classes == 2 and WAV2VEC2.read_config(hub | {"num_labels": 9}).classes == 9
    assert WAV2VEC2.read_config(hub).window is None
