"""Adapters saved alone: what goes in comes out, and only for the base that it was trained on."""

import jax
import numpy as np
import pytest

from slm_jax.checkpoints.adapter_folder import load_adapter, save_adapter
from slm_jax.checkpoints.lazy import part_hash
from slm_jax.checkpoints.model_folder import read_meta, save_model
from slm_jax.core.errors import UserError
from slm_jax.core.trees import flatten_by_path
from slm_jax.nn.lora import LoRAConfig

CONFIG = LoRAConfig(targets="blocks/layers/(query|out)", rank=2, name="speech")


def drawn(*shape, seed=0):
    return np.random.default_rng([seed, *shape]).normal(size=shape).astype(np.float32)


def base(width=6, seed=0):
    query, out = {"kernel": drawn(3, width, 2, 4, seed=seed)}, {"kernel": drawn(3, 2, 4, width, seed=seed)}
    return {"blocks": {"layers": {"query": query, "out": out}}}


def lora(name="speech"):
    query, out = {"a": drawn(3, 6, 2), "b": drawn(3, 2, 2, 4)}, {"a": drawn(3, 2, 4, 2), "b": drawn(3, 2, 6)}
    return {"blocks": {"layers": {"query": {name: query}, "out": {name: out}}}}


@pytest.fixture
def folder(tmp_path):
    return save_adapter(tmp_path / "adapter", CONFIG, lora(), base(), {"source": "here"})


def test_an_adapter_comes_back_alone(folder):
    config, back = load_adapter(folder, base())
    assert config == CONFIG
    wanted = flatten_by_path(lora())
    assert flatten_by_path(back).keys() == wanted.keys()
    for path, leaf in flatten_by_path(back).items():
        assert isinstance(leaf, jax.Array)
        np.testing.assert_array_equal(leaf, wanted[path])
    assert read_meta(folder) == {"source": "here", "base": part_hash(base())}


def test_one_of_several_is_saved(tmp_path):
    both = lora()
    both["blocks"]["layers"]["query"]["style"] = lora("style")["blocks"]["layers"]["query"]["style"]
    folder = save_adapter(tmp_path / "style", CONFIG.replace(name="style"), both, base())
    assert set(flatten_by_path(load_adapter(folder, base())[1])) == {
        "blocks/layers/query/style/a",
        "blocks/layers/query/style/b",
    }
    with pytest.raises(UserError, match="adapter is 'voice'"):
        save_adapter(tmp_path / "voice", CONFIG.replace(name="voice"), both, base())


def test_a_base_of_other_shapes_is_refused_by_path(folder):
    with pytest.raises(UserError) as caught:
        load_adapter(folder, base(width=5), other_weights=True)
    assert "blocks/layers/query/kernel has shape (3, 5, 2, 4), a and b have (3, 6, 2) and (3, 2, 2, 4)" in str(
        caught.value
    )
    assert "blocks/layers/out/kernel" in str(caught.value)
    less = {"blocks": {"layers": {"query": base()["blocks"]["layers"]["query"]}}}
    with pytest.raises(UserError, match="blocks/layers/out/kernel is absent"):
        load_adapter(folder, less)


def test_a_base_of_other_weights_is_refused_unless_allowed(folder):
    with pytest.raises(UserError, match=f"trained on {part_hash(base())}"):
        load_adapter(folder, base(seed=1))
    assert load_adapter(folder, base(seed=1), other_weights=True)[0] == CONFIG


def test_a_base_in_int8_fits(folder):
    layers = base()["blocks"]["layers"]
    for layer in layers.values():
        layer["kernel"] = {"q": layer["kernel"].astype(np.int8), "scale": np.float32([1.0])}
    assert load_adapter(folder, {"blocks": {"layers": layers}}, other_weights=True)[0] == CONFIG


def test_a_whole_model_is_no_adapter(tmp_path):
    folder = save_model(tmp_path / "model", CONFIG, base())
    with pytest.raises(UserError, match="holds a whole model"):
        load_adapter(folder, base())
