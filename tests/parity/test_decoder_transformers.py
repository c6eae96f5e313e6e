"""GPT-2, OPT, LLaMA, Qwen2, Mistral of `transformers`: saved, read by the tables, compared under padding, written.

Shapes are tiny and odd on purpose: a prime vocabulary, widths that are no powers of two, one layer, one key head.
"""

import copy
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from slm_jax.interop.model import export, load
from slm_jax.nn.positions import RopeScaling
from slm_jax.sequence_models.decoder_config import DecoderConfig
from slm_jax.sequence_models.presets import gpt2, llama, mistral, opt, qwen2
from slm_jax.workbench.parity import compare_folder

V, S = 41, 9
SHAPE = {"vocab_size": V, "hidden_size": 30, "num_hidden_layers": 2, "num_attention_heads": 3}
SHAPE |= {"max_position_embeddings": 24}
GPT2_SHAPE = {"vocab_size": V, "n_embd": 33, "n_layer": 2, "n_head": 3, "n_positions": 24}
GATED = {**SHAPE, "intermediate_size": 47, "num_key_value_heads": 1}
TINY = {"vocabulary": V, "layers": 2, "width": 30, "heads": 3, "max_positions": 24}
LLAMA3 = {"rope_type": "llama3", "rope_theta": 100.0, "factor": 8.0, "original_max_position_embeddings": 16}
LLAMA3 |= {"low_freq_factor": 1.0, "high_freq_factor": 4.0}
LENGTHS = np.array([9, 5, 2])
IDS = np.random.default_rng(0).integers(3, V, (3, S))

PAIRS = {
    "gpt2": ("GPT2LMHeadModel", GPT2_SHAPE, gpt2(**TINY | {"width": 33}, hidden=132)),
    "gpt2_odd": (
        "GPT2LMHeadModel",
        {**GPT2_SHAPE, "n_layer": 1, "n_inner": 47, "activation_function": "relu", "tie_word_embeddings": False},
        gpt2(**TINY | {"width": 33, "layers": 1}, hidden=47, activation="relu", tied_head=False),
    ),
    "opt_125m": ("OPTForCausalLM", {**SHAPE, "ffn_dim": 48, "word_embed_proj_dim": 30}, opt(**TINY, hidden=48)),
    "opt_350m": (
        "OPTForCausalLM",
        {**SHAPE, "ffn_dim": 47, "word_embed_proj_dim": 16, "do_layer_norm_before": False},
        opt("350m", **TINY, hidden=47, embed_width=16),
    ),
    "opt_no_biases": (
        "OPTForCausalLM",
        {**SHAPE, "ffn_dim": 47, "word_embed_proj_dim": 30, "enable_bias": False, "_remove_final_layer_norm": True},
        opt(**TINY, hidden=47, qkv_bias=False, out_bias=False, mlp_bias=False, final_norm=False),
    ),
    "llama": (
        "LlamaForCausalLM",
        {**GATED, "num_attention_heads": 6, "hidden_size": 36, "num_key_value_heads": 2},
        llama(**TINY | {"heads": 6, "width": 36}, kv_heads=2, hidden=47),
    ),
    "llama3": (
        "LlamaForCausalLM",
        {**GATED, "rope_parameters": LLAMA3},
        llama(
            **TINY,
            kv_heads=1,
            hidden=47,
            rope_base=100.0,
            rope_scaling=RopeScaling(kind="llama3", factor=8.0, original_length=16),
        ),
    ),
    "llama_odd": (
        "LlamaForCausalLM",
        {
            **GATED,
            "num_hidden_layers": 1,
            "head_dim": 14,
            "attention_bias": True,
            "mlp_bias": True,
            "tie_word_embeddings": True,
            "rope_parameters": {"rope_type": "linear", "rope_theta": 50.0, "factor": 2.5},
        },
        llama(
            **TINY | {"layers": 1},
            kv_heads=1,
            head_width=14,
            hidden=47,
            qkv_bias=True,
            out_bias=True,
            mlp_bias=True,
            tied_head=True,
            rope_base=50.0,
            rope_scaling=RopeScaling(factor=2.5),
        ),
    ),
    "qwen2": (
        "Qwen2ForCausalLM",
        {**GATED, "rope_parameters": {"rope_type": "default", "rope_theta": 1e6}, "tie_word_embeddings": True},
        qwen2(**TINY, kv_heads=1, hidden=47),
    ),
    "qwen2_window": (
        "Qwen2ForCausalLM",
        {**GATED, "use_sliding_window": True, "sliding_window": 4, "max_window_layers": 0, "rms_norm_eps": 1e-5},
        qwen2(**TINY, kv_heads=1, hidden=47, rope_base=1e4, tied_head=False, window=4, norm_epsilon=1e-5),
    ),
    "mistral": (
        "MistralForCausalLM",
        {**GATED, "sliding_window": 4, "rms_norm_eps": 1e-5},
        mistral(**TINY, kv_heads=1, hidden=47, window=4),
    ),
}
"""name -> class, fields of its config, what our config must be."""


class Pair(NamedTuple):
    """The reference with every weight drawn anew, its folder, our config and parameters read from it, a jitted call."""

    theirs: Any
    folder: Path
    config: DecoderConfig
    params: dict
    run: Callable


@pytest.fixture(params=PAIRS, scope="module")
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Pair:
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    name, fields, _ = PAIRS[request.param]
    kind = getattr(transformers, name)
    theirs = kind(kind.config_class(**fields))
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.copy_(0.2 * torch.randn(parameter.shape, generator=generator))
    theirs.eval()
    folder = tmp_path_factory.mktemp(request.param) / "hub"
    theirs.save_pretrained(folder)
    config, params = load(folder)
    assert config == PAIRS[request.param][2]
    model = config.make()
    run = jax.jit(lambda params, ids, mask: model.apply({"params": params}, ids, mask=mask))
    return Pair(theirs, folder, config, params, run)


def reference_logits(theirs, entries: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """From ids or vectors; positions count real tokens, as `generate` of the reference makes them."""
    import torch

    positions = np.maximum(mask.cumsum(1) - 1, 0)
    name = "inputs_embeds" if entries.ndim == 3 else "input_ids"
    inputs = {name: torch.tensor(entries), "attention_mask": torch.tensor(mask.astype(np.int64))}
    if theirs.config.model_type != "opt":  # OPT makes them of the mask itself
        inputs["position_ids"] = torch.tensor(positions)
    with torch.no_grad():
        return theirs(**inputs).logits.numpy()


@pytest.mark.parametrize("side", ["right", "left"])
def test_logits_equal_the_reference_under_padding(pair, side):
    index = np.arange(S)
    mask = index < LENGTHS[:, None] if side == "right" else index >= S - LENGTHS[:, None]
    wanted = reference_logits(pair.theirs, IDS, mask)
    ours = np.asarray(pair.run(pair.params, jnp.asarray(IDS, jnp.int32), jnp.asarray(mask)))
    assert np.abs(wanted[mask]).max() > 0.1
    assert np.abs(ours[mask] - wanted[mask]).max() <= 1e-5 * max(1.0, np.abs(wanted[mask]).max())


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("pair", ["gpt2", "llama", "mistral"], indirect=True)
def test_vectors_enter_as_into_the_reference(pair, side):
    """At once, and in two pieces with a cache; no vector is that of a token."""
    index = np.arange(S)
    mask = index < LENGTHS[:, None] if side == "right" else index >= S - LENGTHS[:, None]
    vectors = np.random.default_rng(1).standard_normal((3, S, pair.config.width)).astype(np.float32)
    wanted = reference_logits(pair.theirs, vectors, mask)
    model = pair.config.make()
    at_once, in_pieces = jax.jit(partial(from_vectors, model))(pair.params, vectors, mask)
    for ours in (at_once, in_pieces):
        assert np.abs(np.asarray(ours)[mask] - wanted[mask]).max() <= 1e-5 * max(1.0, np.abs(wanted[mask]).max())


def from_vectors(model, params, vectors, mask):
    """Logits from `run`, and from two calls of `extend`."""
    apply = partial(model.apply, {"params": params})
    first, state = apply(vectors[:, :5], model.initial_state(3, S), mask[:, :5], method="extend")
    second, _ = apply(vectors[:, 5:], state, mask[:, 5:], method="extend")
    at_once = apply(vectors, mask=mask, method="run")
    return apply(at_once, method="head"), apply(jnp.concatenate([first, second], 1), method="head")


@pytest.mark.parametrize("pair", ["gpt2_odd", "opt_350m", "llama", "qwen2_window"], indirect=True)
def test_every_layer_equals_the_reference_under_padding(pair):
    found = list(compare_folder(pair.folder, 0, "float32"))
    assert [item.case.partition(", ")[2] for item in found[:3]] == ["plain", "right-padded", "left-padded"]
    layers = [f"layer_{number}" for number in range(1, pair.config.layers + 1)]
    for item in found[:-1]:
        assert {"embeddings", *layers, "logits"} <= {row.layer for row in item.rows}
        assert [row for row in item.rows if not row.ok or row.max_abs > row.tolerance / 10] == []
    assert found[-1].rows[0].ok, "the negative control is noticed"


def test_what_we_write_is_the_same_model_to_transformers(pair, tmp_path):
    """Bit for bit: names, weights, config (by its logits) and the folder read once more by ourselves."""
    import torch
    from transformers import AutoModelForCausalLM

    export(pair.config, pair.params, tmp_path / "hub", shard_bytes=20_000)
    again, report = AutoModelForCausalLM.from_pretrained(tmp_path / "hub", output_loading_info=True)
    assert not any(report.values())
    assert type(again) is type(pair.theirs)
    assert again.state_dict().keys() == pair.theirs.state_dict().keys()
    for name, weight in pair.theirs.state_dict().items():
        assert torch.equal(again.state_dict()[name], weight), name
    mask = np.ones_like(IDS, bool)
    np.testing.assert_array_equal(reference_logits(again.eval(), IDS, mask), reference_logits(pair.theirs, IDS, mask))
    config, params = load(tmp_path / "hub")
    assert config == pair.config
    jax.tree.map(np.testing.assert_array_equal, params, pair.params)


@pytest.mark.parametrize("pair", ["gpt2", "opt_350m", "llama", "qwen2"], indirect=True)
def test_bare_models_prefixes_and_copies_of_the_head_are_the_same_model(pair, tmp_path):
    """A body saved without its head class, the prefix of speech toolkits, and a tied head that is in the file too."""
    from safetensors.torch import load_file, save_file

    config_text = (pair.folder / "config.json").read_text()
    whole = load_file(pair.folder / "model.safetensors")
    base = f"{pair.theirs.base_model_prefix}."
    spellings = {
        "bare": {name.removeprefix(base): weight for name, weight in whole.items()},
        "lm": {f"lm.{name}": weight for name, weight in whole.items()},
        "copied": {name: weight.clone().contiguous() for name, weight in pair.theirs.state_dict().items()},
    }
    for spelling, weights in spellings.items():
        folder = tmp_path / spelling
        folder.mkdir()
        (folder / "config.json").write_text(config_text)
        save_file(weights, folder / "model.safetensors")
        jax.tree.map(np.testing.assert_array_equal, load(folder)[1], pair.params)


@pytest.mark.parametrize("pair", ["opt_350m", "qwen2"], indirect=True)
def test_half_precision_folders_become_float32(pair, tmp_path):
    """The reference in bfloat16 holds rounded weights; ours are the same numbers."""
    import torch

    narrow = copy.deepcopy(pair.theirs).to(torch.bfloat16)
    narrow.save_pretrained(tmp_path / "hub")
    assert json.loads((tmp_path / "hub" / "config.json").read_text())["dtype"] == "bfloat16"
    config, params = load(tmp_path / "hub")
    assert config == pair.config
    mask = np.ones_like(IDS, bool)
    wanted = reference_logits(narrow.to(torch.float32), IDS, mask)
    ours = np.asarray(pair.run(params, jnp.asarray(IDS, jnp.int32), jnp.asarray(mask)))
    assert np.abs(ours - wanted).max() <= 1e-5 * max(1.0, np.abs(wanted).max())


@pytest.mark.parametrize("pair", ["opt_350m", "qwen2", "mistral"], indirect=True)
def test_greedy_tokens_equal_the_reference(pair):
    import torch

    from slm_jax.generation.decode import generate
    from slm_jax.generation.sampling import SamplingConfig

    mask = np.arange(S) < LENGTHS[:, None]
    settings = SamplingConfig(max_new=10, temperature=0.0)
    ours = generate(pair.config.make(), pair.params, IDS, mask, jax.random.key(0), settings)
    for row, length in enumerate(LENGTHS):
        prompt = torch.tensor(IDS[row : row + 1, :length])
        settings = {
            "do_sample": False,
            "max_new_tokens": 10,
            "min_new_tokens": 10,
            "eos_token_id": None,
            "pad_token_id": 1,
        }
        wanted = pair.theirs.generate(prompt, attention_mask=torch.ones_like(prompt), **settings)[0, length:]
        assert np.asarray(ours.ids[row]).tolist() == wanted.tolist()
