"""Hub folders written and read without PyTorch: identity, shards, dtypes, and nothing half-written."""

import json
import resource
import shutil
import signal

import jax
import numpy as np
import pytest

from slm_jax.core.errors import UserError
from slm_jax.interop.engine import MappingError
from slm_jax.interop.families import family_for
from slm_jax.interop.model import export, load, open_model
from slm_jax.sequence_models.presets import gpt2, llama, opt, qwen2

TINY = {"vocabulary": 41, "layers": 2, "width": 24, "heads": 3, "hidden": 37, "max_positions": 19}
CONFIGS = {
    "gpt2": gpt2(**TINY),
    "gpt2_untied": gpt2(**TINY, tied_head=False),
    "opt": opt(**TINY),
    "opt_350m": opt("350m", **TINY, embed_width=10),
    "llama": llama(**TINY, kv_heads=1),
    "llama_wide_heads": llama(**TINY, kv_heads=1, head_width=10, tied_head=True),
    "llama_biases": llama(**TINY, kv_heads=3, qkv_bias=True, out_bias=True, mlp_bias=True),
    "qwen2": qwen2(**TINY, kv_heads=1),
}


def drawn(config, seed=0):
    """Parameters of the config's shapes, every number different."""
    rng = np.random.default_rng(seed)
    return jax.tree.map(
        lambda leaf: rng.normal(size=leaf.shape).astype(np.float32), family_for(config).abstract(config)
    )


@pytest.fixture
def folder(tmp_path):
    """A small LLaMA on disk, in three shards."""
    config = CONFIGS["llama"]
    return export(config, drawn(config), tmp_path / "hub", shard_bytes=16_000)


@pytest.mark.parametrize("name", CONFIGS)
def test_export_then_load_is_the_identity(tmp_path, name):
    config = CONFIGS[name]
    params = drawn(config)
    export(config, params, tmp_path / "hub")
    read, found = load(tmp_path / "hub")
    assert read == config
    jax.tree.map(np.testing.assert_array_equal, found, params)


def test_the_original_spelling_of_llama(tmp_path):
    config = CONFIGS["llama"]
    params = drawn(config)
    export(config, params, tmp_path / "hub", spelling="original")
    model = open_model(tmp_path / "hub")
    assert model.spelling == "original"
    assert "layers.1.attention.wq.weight" in model.weights.shapes
    jax.tree.map(np.testing.assert_array_equal, load(tmp_path / "hub")[1], params)
    params_json = {"dim": 24, "n_layers": 2, "n_heads": 3, "n_kv_heads": 1, "vocab_size": 41, "hidden_dim": 37}
    (tmp_path / "hub" / "config.json").unlink()
    (tmp_path / "hub" / "params.json").write_text(json.dumps(params_json | {"max_seq_len": 19, "norm_eps": 1e-6}))
    read, found = load(tmp_path / "hub")
    assert read == config
    jax.tree.map(np.testing.assert_array_equal, found, params)


@pytest.mark.parametrize(("dtype", "bits"), [("bfloat16", 8), ("float16", 11)])
def test_narrow_dtypes_are_written_and_read_as_float32(tmp_path, dtype, bits):
    config = CONFIGS["gpt2"]
    params = drawn(config)
    export(config, params, tmp_path / "hub", dtype=dtype)
    assert set(open_model(tmp_path / "hub").weights.dtypes.values()) == {dtype}
    found = load(tmp_path / "hub")[1]
    for ours, theirs in zip(jax.tree.leaves(params), jax.tree.leaves(found), strict=True):
        assert theirs.dtype == np.float32
        np.testing.assert_allclose(theirs, ours, rtol=2.0**-bits)
    export(config, found, tmp_path / "again", dtype=dtype)
    jax.tree.map(np.testing.assert_array_equal, load(tmp_path / "again")[1], found)


def test_numbers_too_large_for_float16_are_refused(tmp_path):
    params = drawn(CONFIGS["gpt2"])
    params["final_norm"]["bias"][3] = 1e5
    with pytest.raises(UserError, match=r"'transformer\.ln_f\.bias' reaches 1e\+05, more than float16 can hold"):
        export(CONFIGS["gpt2"], params, tmp_path / "hub", dtype="float16")
    assert not list(tmp_path.iterdir())


def test_shards_and_their_index(folder):
    names = sorted(path.name for path in folder.iterdir())
    assert names[1:] == [
        "model-00001-of-00003.safetensors",
        "model-00002-of-00003.safetensors",
        "model-00003-of-00003.safetensors",
        "model.safetensors.index.json",
    ]
    index = json.loads((folder / "model.safetensors.index.json").read_text())
    assert index["metadata"]["total_size"] == 4 * sum(leaf.size for leaf in jax.tree.leaves(load(folder)[1]))


def test_a_missing_or_cut_shard(folder):
    shard = folder / "model-00002-of-00003.safetensors"
    shard.write_bytes(shard.read_bytes()[:-7])
    with pytest.raises(UserError, match=r"model-00002-of-00003\.safetensors is cut short"):
        load(folder)
    shard.unlink()
    with pytest.raises(UserError, match="lacks 1 of 3 shards"):
        load(folder)


def test_a_config_of_another_architecture_or_shape(folder):
    hub_config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({"model_type": "gpt2", "n_embd": 24, "n_layer": 1, "n_head": 3}))
    with pytest.raises(MappingError, match=r"is no gpt2 as its config\.json says, \d+ faults") as error:
        load(folder)
    assert any("lm_head" in fault for fault in error.value.faults)
    (folder / "config.json").write_text(json.dumps(hub_config | {"vocab_size": 43, "num_hidden_layers": 1}))
    with pytest.raises(MappingError) as error:
        load(folder)
    assert "source 'lm_head.weight' has shape [41, 24], 'head_kernel' needs [43, 24]" in error.value.faults
    assert len(error.value.faults) == 11  # the nine weights of the layer too many, and two of the vocabulary


def test_extra_missing_misshapen_and_whole_number_weights_of_a_real_file_are_one_error(folder):
    library = pytest.importorskip("safetensors.numpy")
    source = open_model(folder).weights
    weights = {name: np.array(source.read(name)) for name in source.shapes}
    weights["model.norm.weigth"] = weights.pop("model.norm.weight")
    weights["model.embed_tokens.weight"] = weights["model.embed_tokens.weight"].astype(np.int64)
    weights["model.layers.1.mlp.up_proj.weight"] = np.zeros((36, 24), np.float32)
    weights["q_out.summary"] = np.zeros((2, 24), np.float32)
    for path in folder.glob("model*"):
        path.unlink()
    library.save_file(weights, folder / "model.safetensors")
    with pytest.raises(MappingError) as error:
        load(folder)
    assert sorted(error.value.faults) == [
        "source 'model.embed_tokens.weight' holds int64, 'tokens/embedding' needs float32",
        "source 'model.layers.1.mlp.up_proj.weight' has shape [36, 24], 'blocks/layers/mlp/up/kernel' needs [37, 24]",
        "source 'model.norm.weigth' has no rule (did you mean 'model.norm.weight'?)",
        "source 'q_out.summary' has no rule",
        "target 'final_norm/scale' is left unfilled: no source 'model.norm.weight'",
    ]


def test_config_files_that_are_none(folder):
    (folder / "config.json").write_text("{")
    with pytest.raises(UserError, match=r"config\.json is no JSON"):
        load(folder)
    (folder / "config.json").write_text("[1]")
    with pytest.raises(UserError, match=r"config\.json holds list"):
        load(folder)
    (folder / "config.json").unlink()
    with pytest.raises(UserError, match=r"has no config\.json"):
        load(folder)


def test_an_existing_folder_is_not_touched(folder):
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    with pytest.raises(UserError, match="exists already: name a new folder"):
        export(CONFIGS["qwen2"], drawn(CONFIGS["qwen2"]), folder)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_parameters_of_another_config_are_refused(tmp_path):
    with pytest.raises(MappingError, match=r"the parameters are not those of the config, \d+ faults"):
        export(CONFIGS["llama"], drawn(CONFIGS["qwen2"]), tmp_path / "hub")
    with pytest.raises(UserError, match="spelling is 'fairseq': llama has transformers, original"):
        export(CONFIGS["llama"], drawn(CONFIGS["llama"]), tmp_path / "hub", spelling="fairseq")
    assert not list(tmp_path.iterdir())


def test_a_disk_that_fills_up_leaves_nothing(tmp_path):
    config = CONFIGS["llama"]
    params = drawn(config)
    old_limit, old_action = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, old_limit[1]))
    try:
        with pytest.raises(UserError, match="could not be written: File too large"):
            export(config, params, tmp_path / "hub")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old_limit)
        signal.signal(signal.SIGXFSZ, old_action)
    assert not list(tmp_path.iterdir())
    export(config, params, tmp_path / "hub")


def test_the_parameters_outlive_the_files(folder):
    _, params = load(folder)
    kept = jax.tree.map(np.copy, params)
    for shard in folder.glob("*.safetensors"):
        shard.write_bytes(bytes(shard.stat().st_size))
    shutil.rmtree(folder)
    jax.tree.map(np.testing.assert_array_equal, params, kept)


def test_names_are_told_as_they_are_written(tmp_path):
    told = []
    export(CONFIGS["gpt2"], drawn(CONFIGS["gpt2"]), tmp_path / "hub", on_tensor=told.append)
    assert told == list(open_model(tmp_path / "hub").weights.shapes)


def broken(changes):
    """A small LLaMA of which some leaves, or layers of them, are other numbers."""
    params = drawn(CONFIGS["llama"])
    layers = params["blocks"]["layers"]
    for (*names, last), layer, value in changes:
        node = layers
        for name in names:
            node = node[name]
        node[last] = node[last].copy()
        node[last][layer] = value
    return params


def test_weights_that_nobody_trained_are_not_written(tmp_path):
    """A layer of zeros, a NaN and an infinity, all in one error; norms of zero may be meant."""
    up, scale, query = ("mlp", "up", "kernel"), ("attention_norm", "scale"), ("attention", "query", "kernel")
    params = broken(
        [(up, 1, 0.0), (query, (0, 0), np.nan), (scale, (1, slice(2)), np.inf), (("mlp_norm", "scale"), 0, 0.0)]
    )
    with pytest.raises(MappingError) as error:
        export(CONFIGS["llama"], params, tmp_path / "hub")
    assert sorted(error.value.faults) == [
        "'model.layers.0.self_attn.q_proj.weight' has 24 values that are not finite",
        "'model.layers.1.input_layernorm.weight' has 2 values that are not finite",
        "'model.layers.1.mlp.up_proj.weight' of shape [37, 24] is all zero",
    ]
    assert not (tmp_path / "hub").exists() and "--unchecked" in str(error.value)
    export(CONFIGS["llama"], params, tmp_path / "hub", checked=False)
    _, again = load(tmp_path / "hub")
    assert not again["blocks"]["layers"]["mlp"]["up"]["kernel"][1].any()


def test_biases_and_norms_may_be_zero(tmp_path):
    config = CONFIGS["llama_biases"]
    params = jax.tree_util.tree_map_with_path(
        lambda path, leaf: 0 * leaf if jax.tree_util.keystr(path[-1:], simple=True) in ("bias", "scale") else leaf,
        drawn(config),
    )
    assert export(config, params, tmp_path / "hub").is_dir()
