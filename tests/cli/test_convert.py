"""`convert` as a person types it: both ways, from the hub's cache, from a run, and what it refuses."""

import json
import os

import jax
import numpy as np
import pytest

from slm_jax.checkpoints.manager import Checkpoints
from slm_jax.checkpoints.model_folder import load_model, read_meta, save_model
from slm_jax.cli.main import main
from slm_jax.data.pipeline import PipelineConfig
from slm_jax.interop.families import family_for
from slm_jax.interop.model import export, load
from slm_jax.sequence_models.presets import llama, opt
from slm_jax.training.gradient_stage import CHECKPOINTS
from slm_jax.training.loop import TrainConfig
from slm_jax.training.pre.unit_lm import UnitLMConfig
from slm_jax.training.run_folder import RunFolder

CONFIG = llama(vocabulary=23, layers=2, width=12, heads=2, kv_heads=1, hidden=20, max_positions=16)
TEXTS = {
    "tokenizer.json": '{"model": 1}',
    "tokenizer_config.json": "{}",
    "generation_config.json": '{"eos_token_id": 2}',
}


def drawn(config, seed=0):
    rng, shapes = np.random.default_rng(seed), family_for(config).abstract(config)
    return jax.tree.map(lambda leaf: rng.normal(size=leaf.shape).astype(np.float32), shapes)


@pytest.fixture
def hub(tmp_path):
    """A hub folder with a tokenizer, and with a file that is nobody's."""
    folder = export(CONFIG, drawn(CONFIG), tmp_path / "hub")
    for name, text in TEXTS.items():
        (folder / name).write_text(text)
    (folder / "README.md").write_text("mine")
    return folder


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    """A place with `hub`, `ours` and an empty folder; only read from."""
    place = tmp_path_factory.mktemp("both")
    export(CONFIG, drawn(CONFIG), place / "hub")
    assert main(["convert", str(place / "hub"), str(place / "ours")]) == 0
    (place / "empty").mkdir()
    return place


def typed(capfd, *argv):
    """Exit code, JSON on stdout or None, stderr."""
    code = main(["convert", *map(str, argv), "--json"])
    printed = capfd.readouterr()
    return code, json.loads(printed.out) if printed.out else None, printed.err


def equal(one, other):
    jax.tree.map(np.testing.assert_array_equal, jax.tree.map(np.asarray, one), jax.tree.map(np.asarray, other))


def test_there_and_back_again(hub, capfd, tmp_path):
    code, result, err = typed(capfd, hub, tmp_path / "ours")
    assert code == 0 and "convert: 100%" in err
    assert (result["to"], result["family"], result["dtype"]) == ("jax", "llama", "float32")
    config, params = load_model(tmp_path / "ours")
    assert config == CONFIG
    assert result["parameters"] == sum(leaf.size for leaf in jax.tree.leaves(params))
    equal(params, load(hub)[1])
    assert read_meta(tmp_path / "ours")["family"] == "llama"
    code, result, _ = typed(capfd, tmp_path / "ours", tmp_path / "back")
    assert code == 0 and result["to"] == "torch"
    assert load(tmp_path / "back")[0] == CONFIG
    equal(load(tmp_path / "back")[1], params)
    for folder in (tmp_path / "ours", tmp_path / "back"):
        assert {name: (folder / name).read_text() for name in TEXTS} == TEXTS
        assert not (folder / "README.md").exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["back", "hub", "ours"]


def test_a_single_file_of_weights_beside_its_config(hub, capfd, tmp_path):
    np.savez(tmp_path / "hub" / "weights.npz", **numpy_state(hub))
    code, _, err = typed(capfd, hub / "weights.npz", tmp_path / "ours", "--to", "jax", "--dtype", "bfloat16")
    assert code == 0, err
    params = load_model(tmp_path / "ours")[1]
    assert {str(leaf.dtype) for leaf in jax.tree.leaves(params)} == {"bfloat16"}


def numpy_state(hub):
    from slm_jax.interop.readers import open_weights

    weights = open_weights(hub)
    return {name: weights.read(name) for name in weights.shapes}


def test_spelling_and_shards_of_the_way_back(hub, capfd, tmp_path):
    assert typed(capfd, hub, tmp_path / "ours", "--mesh", "2")[0] == 0
    argv = [tmp_path / "ours", tmp_path / "back", "--spelling", "original", "--shard-gb", "3e-6"]
    assert typed(capfd, *argv)[0] == 0
    assert len(list((tmp_path / "back").glob("model-*.safetensors"))) > 1
    index = json.loads((tmp_path / "back" / "model.safetensors.index.json").read_text())
    assert "layers.0.attention.wq.weight" in index["weight_map"]
    equal(load(tmp_path / "back")[1], load(hub)[1])


def test_a_name_of_the_hub_is_found_in_its_cache(hub, capfd, tmp_path, monkeypatch):
    pytest.importorskip("huggingface_hub")
    commit = "0123456789abcdef0123456789abcdef01234567"
    cached = tmp_path / "cache" / "models--somebody--tiny"
    (cached / "refs").mkdir(parents=True)
    (cached / "refs" / "main").write_text(commit)
    (cached / "snapshots").mkdir()
    hub.rename(cached / "snapshots" / commit)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    code, result, err = typed(capfd, "hub:somebody/tiny", tmp_path / "ours")
    assert code == 0, err
    assert result["carried"] == list(TEXTS) and read_meta(tmp_path / "ours")["source"] == "hub:somebody/tiny"
    equal(load_model(tmp_path / "ours")[1], drawn(CONFIG))
    code, _, err = typed(capfd, "hub:somebody/else", tmp_path / "other")
    assert code == 2 and err.startswith("error: hub:somebody/else can't be had") and err.count("\n") == 1


@pytest.mark.parametrize("ema", [None, 0.9])
def test_a_stage_of_a_run_becomes_a_hub_folder(capfd, tmp_path, ema):
    config = opt(vocabulary=24, layers=2, width=12, heads=2, hidden=20, max_positions=16)
    stage = UnitLMConfig(
        name="lm",
        units="units",
        model=config,
        train=TrainConfig(steps=1, ema_decay=ema),
        batches=PipelineConfig(batch=2),
    )
    folder = RunFolder(tmp_path / "run").stage("lm")
    folder.begin(stage, {})
    wanted = drawn(config, 1)
    trees = {"params": wanted} if ema is None else {"params": drawn(config, 2), "ema": wanted}
    checkpoints = Checkpoints(folder.path / CHECKPOINTS)
    checkpoints.save(1, trees, {}, {})
    checkpoints.close()
    code, _, err = typed(capfd, folder.path, tmp_path / "early")
    assert code == 2 and "is not done yet" in err
    folder.finish([CHECKPOINTS])
    code, result, err = typed(capfd, folder.path, tmp_path / "hub")
    assert code == 0, err
    assert result["family"] == "opt"
    equal(load(tmp_path / "hub")[1], wanted)
    (tmp_path / "run" / "run.json").write_text("{}")
    code, _, err = typed(capfd, tmp_path / "run", tmp_path / "other")
    assert code == 2 and "(done: lm)" in err


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["nowhere", "new"], "no such file or folder"),
        (["hub", "ours"], "exists already"),
        (["hub", "new", "--to", "torch"], "goes to jax"),
        (["ours", "new", "--to", "jax"], "goes to torch"),
        (["hub", "new", "--spelling", "original"], "has no meaning on the way to jax"),
        (["ours", "new", "--mesh", "2"], "has no meaning on the way to torch"),
        (["hub", "new", "--mesh", "0"], "--mesh is 0"),
        (["ours", "new", "--spelling", "fairseq"], "llama has transformers, original"),
        (["ours", "new", "--family", "lama"], "did you mean 'llama'"),
        (["ours", "new", "--family", "gpt2"], "gpt2 can't say"),
        (["ours", "new", "--dtype", "int8"], "int8"),
        (["ours", "new", "--shard-gb", "0"], "--shard-gb is 0"),
        (["empty", "new"], "has no config.json"),
        (["hub:", "new"], "hub:ORGANISATION/MODEL"),
    ],
)
def test_a_mistake_is_one_line_and_nothing_is_written(both, capfd, monkeypatch, argv, message):
    monkeypatch.chdir(both)
    before = sorted(path.name for path in both.iterdir())
    code, _, err = typed(capfd, *argv)
    assert code == 2
    assert err.startswith("error: ") and message in err and err.count("\n") == 1, err
    assert sorted(path.name for path in both.iterdir()) == before


def test_weights_that_do_not_fit_leave_nothing(hub, capfd, tmp_path):
    fields = json.loads((hub / "config.json").read_text())
    (hub / "config.json").write_text(json.dumps(fields | {"intermediate_size": 21, "num_hidden_layers": 1}))
    code, _, err = typed(capfd, hub, tmp_path / "ours")
    assert code == 2 and "model.layers.0.mlp.up_proj.weight" in err and "model.layers.1.mlp.up_proj.weight" in err
    assert [path.name for path in tmp_path.iterdir()] == ["hub"]


class RunsCode:
    """Unpickling this makes a folder: what a malicious checkpoint would do."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


def rewritten(hub, change):
    """The folder with its weights changed and written by the reference's own library."""
    from safetensors.numpy import save_file

    weights = {name: np.array(value) for name, value in numpy_state(hub).items()}
    change(weights)
    (hub / "model.safetensors").unlink()
    save_file(weights, hub / "model.safetensors")


def cut(hub):
    """As a broken download leaves it."""
    path = hub / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


def without_a_shard(hub):
    """Two shards in the index, one of them there."""
    places = dict.fromkeys(numpy_state(hub), "model-00001-of-00002.safetensors")
    places["lm_head.weight"] = "model-00002-of-00002.safetensors"
    (hub / "model.safetensors").rename(hub / "model-00001-of-00002.safetensors")
    (hub / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))


def as_a_pickle_with_code(hub):
    """Weights that want to make a folder when they are read."""
    torch = pytest.importorskip("torch")
    (hub / "model.safetensors").unlink()
    torch.save({"x": torch.zeros(2), "y": RunsCode(hub.parent / "it_ran")}, hub / "pytorch_model.bin")


def as_a_damaged_npz(hub):
    """One byte of the last array is flipped, which shows when it is read."""
    weights = numpy_state(hub)
    (hub / "model.safetensors").unlink()
    path = hub / "weights.npz"
    np.savez(path, **weights)
    data = bytearray(path.read_bytes())
    start = data.rindex(b"\x93NUMPY")
    data[start + 200] ^= 0xFF
    path.write_bytes(data)


def of_another_architecture(hub):
    """The config of another family."""
    fields = {"model_type": "gpt2", "n_embd": 12, "n_layer": 2, "n_head": 2, "vocab_size": 23}
    (hub / "config.json").write_text(json.dumps(fields))


BROKEN = {
    "cut short": (cut, "is cut short"),
    "a missing shard": (without_a_shard, "lacks 1 of 2 shards"),
    "code": (as_a_pickle_with_code, "it wants to run code"),
    "a flipped byte": (as_a_damaged_npz, "is damaged"),
    "another architecture": (of_another_architecture, "is no gpt2 as its config.json says"),
    "an extra key": (lambda hub: rewritten(hub, lambda w: w.update(spare=np.zeros(2, np.float32))), "'spare'"),
    "a lost key": (lambda hub: rewritten(hub, lambda w: w.pop("model.norm.weight")), "'model.norm.weight'"),
    "whole numbers": (
        lambda hub: rewritten(hub, lambda w: w.update({"model.norm.weight": np.ones(12, np.int32)})),
        "holds int32",
    ),
}


@pytest.mark.parametrize("damage", BROKEN)
def test_a_broken_checkpoint_is_one_error_and_leaves_nothing(hub, capfd, tmp_path, damage):
    spoil, message = BROKEN[damage]
    spoil(hub)
    code, _, err = typed(capfd, hub, tmp_path / "ours")
    assert code == 2
    assert err.count("error: ") == 1 and message in err and "Traceback" not in err, err
    assert [path.name for path in tmp_path.iterdir()] == ["hub"]


def test_weights_that_nobody_trained_need_a_word(tmp_path, capfd):
    params = drawn(CONFIG)
    params["tokens"]["embedding"] = 0 * params["tokens"]["embedding"]
    save_model(tmp_path / "ours", CONFIG, params)
    code, _, told = typed(capfd, tmp_path / "ours", tmp_path / "hub")
    assert code == 2 and "'model.embed_tokens.weight' of shape [23, 12] is all zero" in told and "--unchecked" in told
    assert not (tmp_path / "hub").exists()
    assert typed(capfd, tmp_path / "ours", tmp_path / "hub", "--unchecked")[0] == 0
