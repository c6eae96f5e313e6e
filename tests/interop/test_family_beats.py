"""What a `cfg` of BEATs becomes, what it may not say, and the way out and back."""

import jax
import numpy as np
import pytest

from slm_jax.core.errors import UserError
from slm_jax.encoders.beats import beats_base, beats_tiny
from slm_jax.encoders.positional_conv import PositionalConvConfig
from slm_jax.interop.families import FAMILIES, family_for, family_of
from slm_jax.interop.model import export, load

BEATS = FAMILIES["beats"]
TINY = beats_tiny().replace(
    width=12,
    heads=2,
    hidden=10,
    patch_width=8,
    patch=32,
    layer_drop=0.05,
    position=PositionalConvConfig(kernel=6, groups=3),
)
FLAGS = dict.fromkeys(("deep_norm", "relative_position_embedding", "gru_rel_pos"), True)


def test_export_and_import_are_inverse(tmp_path):
    rng = np.random.default_rng(0)
    params = jax.tree.map(lambda leaf: rng.normal(size=leaf.shape).astype(leaf.dtype), BEATS.abstract(TINY))
    assert family_for(TINY) is BEATS
    export(TINY, params, tmp_path / "folder")
    config, read = load(tmp_path / "folder")
    assert config == TINY
    jax.tree.map(np.testing.assert_array_equal, read, params)


def test_a_cfg_becomes_the_preset_but_for_what_it_overrides():
    published = {
        "model_type": "beats",
        **FLAGS,
        "encoder_layers": 12,
        "activation_fn": "gelu",
        "layer_norm_first": False,
        "conv_bias": False,
        "layer_wise_gradient_decay_ratio": 0.6,
        "max_distance": 800,
        "finetuned_model": True,
        "predictor_dropout": 0.0,
        "predictor_class": 527,
    }
    assert family_of(published) is BEATS
    wanted = beats_base()
    assert BEATS.read_config(published) == wanted.replace(relative_bias=wanted.relative_bias.replace(max_distance=800))


def test_everything_unsupported_is_named_at_once():
    wrong = {
        "activation_fn": "glu",
        "layer_norm_first": True,
        "conv_bias": True,
        "deep_norm": False,
        "gru_rel_pos": False,
        "embed_dim": 768,
        "something_new": 1,
    }
    with pytest.raises(UserError) as error:
        BEATS.read_config({"model_type": "beats", **wrong})
    for name in (*wrong, "relative_position_embedding"):
        assert f"{name} is " in str(error.value)


def test_what_a_cfg_has_no_words_for_is_not_written():
    one_sided = TINY.relative_bias.replace(bidirectional=False)
    with pytest.raises(UserError, match=r"beats can't say relative_bias\.bidirectional"):
        BEATS.write_config(TINY.replace(relative_bias=one_sided))
    with pytest.raises(UserError, match=r"beats can't say position\.weight_norm"):
        BEATS.write_config(beats_tiny())
    assert BEATS.read_config(BEATS.write_config(TINY.replace(reference_padding=True))) == TINY
