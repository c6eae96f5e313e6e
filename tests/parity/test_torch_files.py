"""Files of `torch.save`: read when they hold tensors, refused when they want to run code or are damaged."""

import argparse
import os
import pickle
import sys
import types

import numpy as np
import pytest

from slm_jax.core.errors import UserError
from slm_jax.interop.model import export, load
from slm_jax.interop.readers import open_weights
from slm_jax.sequence_models.presets import gpt2

torch = pytest.importorskip("torch")

WEIGHTS = {"a": torch.arange(6.0).reshape(2, 3), "b": torch.tensor([0.5, -3.0], dtype=torch.bfloat16)}


def same(source):
    assert source.shapes == {"a": (2, 3), "b": (2,)}
    assert source.dtypes == {"a": "float32", "b": "bfloat16"}
    for name, tensor in WEIGHTS.items():
        np.testing.assert_array_equal(source.read(name).astype(np.float32), tensor.float().numpy())


class RunsCode:
    """Unpickling this makes a file: what a malicious checkpoint would do."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("wrapped", [None, "model", "state_dict", "generator"])
def test_state_dicts_alone_or_in_a_checkpoint(tmp_path, zipped, wrapped):
    extras = {"args": argparse.Namespace(lr=0.1), "optimizer": {"step": 3}, "epoch": 7}
    content = WEIGHTS if wrapped is None else {wrapped: WEIGHTS, **extras}
    torch.save(content, tmp_path / "x.pt", _use_new_zipfile_serialization=zipped)
    same(open_weights(tmp_path / "x.pt"))


def test_shards_of_pickles(tmp_path):
    for number, name in enumerate(WEIGHTS, start=1):
        torch.save({name: WEIGHTS[name]}, tmp_path / f"pytorch_model-0000{number}-of-00002.bin")
    places = {name: f"pytorch_model-0000{number}-of-00002.bin" for number, name in enumerate(WEIGHTS, start=1)}
    text = str({"weight_map": places}).replace("'", '"')
    (tmp_path / "pytorch_model.bin.index.json").write_text(text)
    same(open_weights(tmp_path))


@pytest.mark.parametrize("form", ["zip", "legacy", "bare pickle"])
def test_a_pickle_that_wants_to_run_code_is_refused_unrun(tmp_path, form):
    canary, path = tmp_path / "it_ran", tmp_path / "pytorch_model.bin"
    content = {"a": torch.zeros(2), "b": RunsCode(canary)}
    if form == "bare pickle":
        path.write_bytes(pickle.dumps({"b": RunsCode(canary)}))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=form == "zip")
    with pytest.raises(UserError, match=r"pytorch_model\.bin is refused: it wants to run code"):
        open_weights(tmp_path)
    assert not canary.exists()
    if form != "bare pickle":  # the control: the file is as bad as it claims
        torch.load(path, weights_only=False)
        assert canary.exists()


@pytest.fixture
def dictionary(monkeypatch):
    """fairseq's class of that name for as long as a file is written; gone when it is read."""
    kind = type("Dictionary", (), {"__module__": "fairseq.data.dictionary"})
    for name in ("fairseq", "fairseq.data", "fairseq.data.dictionary"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    sys.modules["fairseq.data.dictionary"].Dictionary = kind
    return kind


@pytest.mark.parametrize("zipped", [True, False])
def test_what_fairseq_keeps_beside_the_weights_is_left_aside(tmp_path, monkeypatch, dictionary, zipped):
    labels = dictionary()
    labels.__dict__.update(symbols=["<s>", "0"], count=[1, 7], indices={"<s>": 0, "0": 1})
    content = {"model": WEIGHTS, "args": argparse.Namespace(lr=0.1), "task_state": {"dictionaries": [labels]}}
    torch.save(content, tmp_path / "x.pt", _use_new_zipfile_serialization=zipped)
    labels.symbols.append(RunsCode(tmp_path / "it_ran"))
    torch.save(content, tmp_path / "bad.pt", _use_new_zipfile_serialization=zipped)
    monkeypatch.undo()
    assert "fairseq" not in sys.modules
    same(open_weights(tmp_path / "x.pt"))
    with pytest.raises(UserError, match=r"bad\.pt is refused: it wants to run code"):
        open_weights(tmp_path / "bad.pt")
    assert not (tmp_path / "it_ran").exists()


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("share", [0.3, 0.9])
def test_a_file_that_is_cut_short(tmp_path, zipped, share):
    path = tmp_path / "x.pt"
    torch.save({"a": torch.zeros(1000)}, path, _use_new_zipfile_serialization=zipped)
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    with pytest.raises(UserError, match=r"x\.pt (can't be read|is damaged or cut short|is refused)"):
        open_weights(path).read("a")


def test_files_without_weights(tmp_path):
    torch.save({"optimizer": {"x": 1}, "epoch": 3}, tmp_path / "x.pt")
    with pytest.raises(UserError, match=r"holds a dict of optimizer, epoch: expected tensors by name"):
        open_weights(tmp_path / "x.pt")
    torch.save(torch.zeros(3), tmp_path / "y.pt")
    with pytest.raises(UserError, match="holds a Tensor"):
        open_weights(tmp_path / "y.pt")
    torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), tmp_path / "z.pt")
    with pytest.raises(UserError, match=r"z\.pt (can't be read|is refused)"):
        open_weights(tmp_path / "z.pt")


def test_a_whole_model_from_a_pickle_of_half_precision(tmp_path):
    """The same folder as safetensors and as a pickle gives the same parameters."""
    import jax
    from safetensors.torch import load_file

    from slm_jax.interop.families import FAMILIES

    config = gpt2(vocabulary=13, layers=2, width=6, heads=2, hidden=10, max_positions=5)
    rng = np.random.default_rng(0)
    params = jax.tree.map(lambda leaf: rng.normal(size=leaf.shape), FAMILIES["gpt2"].abstract(config))
    folder = export(config, params, tmp_path / "hub", dtype="float16")
    wanted = load(folder)
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    found = load(folder)
    assert found[0] == wanted[0]
    jax.tree.map(np.testing.assert_array_equal, found[1], wanted[1])
