"""What BESTOW trains under NeMo's names: every name has a place, every place a name, both ways are inverse."""

import jax
import numpy as np
import pytest

from slm_jax.core.errors import UserError
from slm_jax.core.trees import flatten_by_path
from slm_jax.interop.bestow import PARTS, load_bestow, named_arrays
from slm_jax.interop.engine import MappingError
from tests.systems.drawn_bestow import drawn_bestow


@pytest.fixture(scope="module")
def model():
    """As released: no factor, maps around the cross-attention, a strided adapter, batch norms in it."""
    config = drawn_bestow().model.config
    adapter = config.adapter.replace(factor=4, channels=6, inner=config.adapter.inner.replace(norm="batch", layers=2))
    return config.replace(adapter=adapter, listener=config.listener.replace(gain=None, inner=8))


@pytest.fixture(scope="module")
def params(model):
    from slm_jax.interop.bestow import abstract_trained

    rng = np.random.default_rng(0)
    shapes = abstract_trained(model)
    return jax.tree.map(lambda leaf: rng.standard_normal(leaf.shape).astype(np.float32), shapes)


def test_what_is_read_is_what_was_written(model, params):
    named = dict(named_arrays(params, model))
    for name in (
        "perception.encoder.pre_encode.conv.0.weight",
        "perception.encoder.layers.0.self_attn.linear_pos.weight",
        "perception.modality_adapter.pre_encode.conv.3.bias",
        "perception.modality_adapter.layers.1.conv.batch_norm.running_var",
        "perception.proj.weight",
        "perception_cross_attn.input_proj2.weight",
        "perception_cross_attn.xattn_decoder.layers.1.second_sub_layer.key_net.weight",
        "perception_cross_attn.xattn_decoder.layers.0.layer_norm_3.bias",
        "perception_cross_attn.xattn_decoder.layers.0.third_sub_layer.dense_out.weight",
        "perception_cross_attn.xattn_decoder.final_layer_norm.weight",
    ):
        assert name in named
    named["perception.preprocessor.featurizer.window"] = np.ones(400, np.float32)
    found, wanted = flatten_by_path(load_bestow(named, model)), flatten_by_path(params)
    assert found.keys() == wanted.keys() and {path.split("/")[0] for path in found} == set(PARTS)
    for path, leaf in found.items():
        np.testing.assert_allclose(leaf, wanted[path], rtol=1e-6)


def test_all_that_does_not_fit_is_listed_and_a_factor_is_refused(model, params):
    named = dict(named_arrays(params, model))
    del named["perception.proj.bias"]
    named["perception_cross_attn.output_proj.weight"] = np.zeros((3, 8), np.float32)
    with pytest.raises(MappingError) as caught:
        load_bestow(named, model)
    assert len(caught.value.faults) == 2
    with pytest.raises(UserError, match=r"listener.gain is 0.5: NeMo's has no factor"):
        load_bestow(named, drawn_bestow().model.config)
