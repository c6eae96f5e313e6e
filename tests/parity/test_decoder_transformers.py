"""The decoder against GPT-2, OPT, LLaMA and Qwen2 of `transformers`, tiny shapes with random weights, padded."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from slm_jax.nn.positions import RopeScaling
from slm_jax.sequence_models.decoder_config import DecoderConfig
from slm_jax.sequence_models.presets import gpt2, llama, opt, qwen2

V, S = 40, 9
TINY = {"vocabulary": V, "layers": 2, "width": 32, "heads": 4, "hidden": 48, "max_positions": 24}
LENGTHS = np.array([9, 5, 2])
IDS = np.random.default_rng(0).integers(3, V, (3, S))


def gpt2_pair():
    from transformers import GPT2Config, GPT2LMHeadModel

    theirs = GPT2LMHeadModel(GPT2Config(vocab_size=V, n_positions=24, n_embd=32, n_layer=2, n_head=4, n_inner=48))
    return theirs, gpt2(**TINY), gpt2_weights


def opt_pair(style: str):
    from transformers import OPTConfig, OPTForCausalLM

    odd = style == "350m"
    shape = {"vocab_size": V, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "ffn_dim": 48}
    theirs = OPTForCausalLM(
        OPTConfig(
            **shape, max_position_embeddings=24, word_embed_proj_dim=16 if odd else 32, do_layer_norm_before=not odd
        )
    )
    return theirs, opt(style, **TINY, embed_width=16 if odd else None), opt_weights


def llama_pair(kind: str = "llama"):
    from transformers import LlamaConfig, LlamaForCausalLM, Qwen2Config, Qwen2ForCausalLM

    shape = {"vocab_size": V, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
    shape |= {"num_key_value_heads": 2, "intermediate_size": 48, "max_position_embeddings": 24}
    if kind == "qwen2":
        rope = {"rope_type": "default", "rope_theta": 1e6}
        theirs = Qwen2ForCausalLM(Qwen2Config(**shape, rope_parameters=rope, tie_word_embeddings=True))
        return theirs, qwen2(**TINY, kv_heads=2), llama_weights
    if kind == "llama3":
        rope = {"rope_type": "llama3", "rope_theta": 100.0, "factor": 8.0, "original_max_position_embeddings": 16}
        rope |= {"low_freq_factor": 1.0, "high_freq_factor": 4.0}
        ours = llama(
            **TINY,
            kv_heads=1,
            rope_base=100.0,
            norm_epsilon=1e-6,
            rope_scaling=RopeScaling(kind="llama3", factor=8.0, original_length=16),
        )
        return (
            LlamaForCausalLM(LlamaConfig(**shape | {"num_key_value_heads": 1}, rope_parameters=rope)),
            ours,
            llama_weights,
        )
    return LlamaForCausalLM(LlamaConfig(**shape)), llama(**TINY, kv_heads=2), llama_weights


PAIRS = {
    "gpt2": gpt2_pair,
    "opt_125m": lambda: opt_pair("125m"),
    "opt_350m": lambda: opt_pair("350m"),
    "llama": llama_pair,
    "llama3": lambda: llama_pair("llama3"),
    "qwen2": lambda: llama_pair("qwen2"),
}


def stack_layers(config: DecoderConfig, layer) -> dict:
    """One tree with a leading axis of layers out of `layer(i)`."""
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *(layer(i) for i in range(config.layers)))


def norm(w: dict, name: str) -> dict:
    bias = {"bias": w[f"{name}.bias"]} if f"{name}.bias" in w else {}
    return {"scale": w[f"{name}.weight"], **bias}


def dense(w: dict, name: str, shape: tuple[int, ...], bias_shape: tuple[int, ...], transpose: bool = True) -> dict:
    kernel = w[f"{name}.weight"].T if transpose else w[f"{name}.weight"]
    bias = {"bias": w[f"{name}.bias"].reshape(bias_shape)} if f"{name}.bias" in w else {}
    return {"kernel": kernel.reshape(shape), **bias}


def heads(config: DecoderConfig, w: dict, prefix: str, names: str, out: str) -> dict:
    """Query, key, value and output maps in the shapes of `nn.attention`."""
    d, c = config.width, config.channels
    count = {"query": config.heads, "key": config.groups, "value": config.groups}
    parts = {
        ours: dense(w, f"{prefix}.{theirs}_proj", (d, count[ours], c), (count[ours], c))
        for ours, theirs in zip(("query", "key", "value"), names, strict=True)
    }
    return {**parts, "out": dense(w, f"{prefix}.{out}", (config.heads, c, d), (d,))}


def gpt2_weights(config: DecoderConfig, w: dict) -> dict:
    d, h, c, f = config.width, config.heads, config.channels, config.hidden

    def layer(i: int) -> dict:
        at = f"transformer.h.{i}"
        kernels = jnp.split(w[f"{at}.attn.c_attn.weight"], 3, axis=1)
        biases = jnp.split(w[f"{at}.attn.c_attn.bias"], 3)
        attention = {
            name: {"kernel": kernel.reshape(d, h, c), "bias": bias.reshape(h, c)}
            for name, kernel, bias in zip(("query", "key", "value"), kernels, biases, strict=True)
        }
        attention["out"] = dense(w, f"{at}.attn.c_proj", (h, c, d), (d,), transpose=False)
        mlp = {
            "up": dense(w, f"{at}.mlp.c_fc", (d, f), (f,), transpose=False),
            "down": dense(w, f"{at}.mlp.c_proj", (f, d), (d,), transpose=False),
        }
        norms = {"attention_norm": norm(w, f"{at}.ln_1"), "mlp_norm": norm(w, f"{at}.ln_2")}
        return {"attention": attention, "mlp": mlp, **norms}

    return {
        "tokens": {"embedding": w["transformer.wte.weight"]},
        "places": {"embedding": w["transformer.wpe.weight"]},
        "blocks": {"layers": stack_layers(config, layer)},
        "final_norm": norm(w, "transformer.ln_f"),
    }


def opt_weights(config: DecoderConfig, w: dict) -> dict:
    d, f, root = config.width, config.hidden, "model.decoder"

    def layer(i: int) -> dict:
        at = f"{root}.layers.{i}"
        mlp = {"up": dense(w, f"{at}.fc1", (d, f), (f,)), "down": dense(w, f"{at}.fc2", (f, d), (d,))}
        return {
            "attention": heads(config, w, f"{at}.self_attn", "qkv", "out_proj"),
            "mlp": mlp,
            "attention_norm": norm(w, f"{at}.self_attn_layer_norm"),
            "mlp_norm": norm(w, f"{at}.final_layer_norm"),
        }

    tree = {
        "tokens": {"embedding": w[f"{root}.embed_tokens.weight"]},
        "places": {"embedding": w[f"{root}.embed_positions.weight"]},
        "blocks": {"layers": stack_layers(config, layer)},
    }
    if config.final_norm:
        return {**tree, "final_norm": norm(w, f"{root}.final_layer_norm")}
    e = config.table_width
    return {
        **tree,
        "project_in": dense(w, f"{root}.project_in", (e, d), (d,)),
        "project_out": dense(w, f"{root}.project_out", (d, e), (e,)),
    }


def llama_weights(config: DecoderConfig, w: dict) -> dict:
    d, f = config.width, config.hidden

    def layer(i: int) -> dict:
        at = f"model.layers.{i}"
        mlp = {
            "gate": dense(w, f"{at}.mlp.gate_proj", (d, f), (f,)),
            "up": dense(w, f"{at}.mlp.up_proj", (d, f), (f,)),
            "down": dense(w, f"{at}.mlp.down_proj", (f, d), (d,)),
        }
        return {
            "attention": heads(config, w, f"{at}.self_attn", "qkv", "o_proj"),
            "mlp": mlp,
            "attention_norm": norm(w, f"{at}.input_layernorm"),
            "mlp_norm": norm(w, f"{at}.post_attention_layernorm"),
        }

    tree = {
        "tokens": {"embedding": w["model.embed_tokens.weight"]},
        "blocks": {"layers": stack_layers(config, layer)},
        "final_norm": norm(w, "model.norm"),
    }
    return tree if config.tied_head else {**tree, "head_kernel": w["lm_head.weight"].T}


@pytest.fixture(params=PAIRS, scope="module")
def pair(request: pytest.FixtureRequest):
    """The reference with every weight drawn anew, our model, and our parameters made from its weights."""
    torch = pytest.importorskip("torch")
    pytest.importorskip("transformers")
    theirs, config, convert = PAIRS[request.param]()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.copy_(0.2 * torch.randn(parameter.shape, generator=generator))
    theirs.eval()
    model = config.make()
    params = convert(config, {name: jnp.asarray(value.numpy()) for name, value in theirs.state_dict().items()})
    shapes = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 2), jnp.int32))
    assert jax.tree.map(jnp.shape, params) == jax.tree.map(lambda leaf: leaf.shape, _unboxed(shapes)["params"])
    return theirs, model, params, jax.jit(lambda ids, mask: model.apply({"params": params}, ids, mask=mask))


def _unboxed(tree):
    from flax.core import meta

    return meta.unbox(tree)


def reference_logits(theirs, ids: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Positions count real tokens, as `generate` of the reference makes them."""
    import torch

    positions = np.maximum(mask.cumsum(1) - 1, 0)
    inputs = {"input_ids": torch.tensor(ids), "attention_mask": torch.tensor(mask.astype(np.int64))}
    if theirs.config.model_type != "opt":  # OPT makes them of the mask itself
        inputs["position_ids"] = torch.tensor(positions)
    with torch.no_grad():
        return theirs(**inputs).logits.numpy()


@pytest.mark.parametrize("side", ["right", "left"])
def test_logits_equal_the_reference_under_padding(pair, side):
    theirs, _, _, run = pair
    index = np.arange(S)
    mask = index < LENGTHS[:, None] if side == "right" else index >= S - LENGTHS[:, None]
    wanted = reference_logits(theirs, IDS, mask)
    ours = np.asarray(run(jnp.asarray(IDS, jnp.int32), jnp.asarray(mask)))
    assert np.abs(wanted[mask]).max() > 0.1
    assert np.abs(ours[mask] - wanted[mask]).max() <= 1e-5 * max(1.0, np.abs(wanted[mask]).max())


@pytest.mark.parametrize("pair", ["opt_350m", "qwen2"], indirect=True)
def test_greedy_tokens_equal_the_reference(pair):
    import torch

    from slm_jax.generation.decode import generate
    from slm_jax.generation.sampling import SamplingConfig

    theirs, model, params, _ = pair
    mask = np.arange(S) < LENGTHS[:, None]
    ours = generate(model, params, IDS, mask, jax.random.key(0), SamplingConfig(max_new=10, temperature=0.0))
    for row, length in enumerate(LENGTHS):
        prompt = torch.tensor(IDS[row : row + 1, :length])
        settings = {
            "do_sample": False,
            "max_new_tokens": 10,
            "min_new_tokens": 10,
            "eos_token_id": None,
            "pad_token_id": 1,
        }
        wanted = theirs.generate(prompt, attention_mask=torch.ones_like(prompt), **settings)[0, length:]
        assert np.asarray(ours.ids[row]).tolist() == wanted.tolist()
