"""The Q-Former's config and names, in both spellings."""

import jax
import numpy as np
import pytest

from slm_jax.adapters.qformer import QFormerConfig
from slm_jax.core.errors import UserError
from slm_jax.core.trees import count_parameters
from slm_jax.interop.engine import export_params, export_shapes, import_params, resolve
from slm_jax.interop.families import family_for, family_of
from slm_jax.interop.family_qformer import QFORMER
from slm_jax.interop.model import export, load

TINY = QFormerConfig(context_width=5, width=6, layers=3, heads=2, hidden=7, cross_every=2, activation="relu")


@pytest.fixture(scope="module")
def params():
    """Parameters that are all different."""
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda leaf: rng.normal(size=leaf.shape).astype(leaf.dtype), QFORMER.abstract(TINY))


@pytest.mark.parametrize("spelling", QFORMER.spellings)
def test_export_and_import_are_inverse(spelling, params, tmp_path):
    export(TINY, params, tmp_path / "hub", spelling=spelling)
    config, read = load(tmp_path / "hub")
    assert config == TINY
    jax.tree.map(np.testing.assert_array_equal, read, params)


def test_the_names_of_a_checkpoint_of_salmonn(params):
    """As its trainer keeps them, beside a buffer that carries nothing."""
    table = QFORMER.table(TINY, "salmonn")
    arrays = {f"speech_Qformer.bert.{name}": array for name, array in export_params(table, params)}
    assert "speech_Qformer.bert.encoder.layer.2.crossattention.self.value.weight" in arrays
    assert "speech_Qformer.bert.embeddings.LayerNorm.bias" in arrays
    assert not any("layer.1.crossattention" in name for name in arrays)
    arrays["speech_Qformer.bert.embeddings.position_ids"] = np.arange(4)[None]
    plan = resolve(table, {name: array.shape for name, array in arrays.items()}, QFORMER.abstract(TINY))
    jax.tree.map(np.testing.assert_array_equal, import_params(plan, arrays.__getitem__), params)


def test_salmonn_has_the_published_size():
    """22.84 million parameters, as counted in the original class."""
    assert round(count_parameters(QFORMER.abstract(QFormerConfig())) / 1e6, 2) == 22.84
    shapes = export_shapes(QFORMER.table(QFormerConfig()), QFORMER.abstract(QFormerConfig()))
    assert shapes["encoder.layer.1.crossattention.attention.key.weight"] == (768, 2048)


def test_defaults_are_those_of_transformers():
    blip2 = {"model_type": "blip_2_qformer", "vocab_size": 30523, "position_embedding_type": "absolute"}
    config = family_of(blip2).read_config(blip2)
    assert (config.layers, config.cross_every, config.context_width) == (12, 2, 1408)
    assert family_for(config) is QFORMER
    assert QFORMER.read_config(QFORMER.write_config(config)) == config


def test_what_is_not_supported_is_named():
    with pytest.raises(UserError, match=r"use_qformer_text_input is True.*hidden_act|hidden_act.*use_qformer_text"):
        QFORMER.read_config({"use_qformer_text_input": True, "hidden_act": "mish"})
