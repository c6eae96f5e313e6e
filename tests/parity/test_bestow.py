"""BESTOW's cross-attention against `torch.nn.TransformerDecoder`, whole, by steps and at a pace."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from slm_jax.core.types import Frames
from slm_jax.nn.pacing import PaceConfig, frames_read
from slm_jax.sequence_models.listener import ListenerConfig
from tests.contracts.checks import random_params

torch = pytest.importorskip("torch")

TOLERANCE = 2e-5
WIDTH, HEADS = 24, 3
CONFIG = ListenerConfig(width=WIDTH, heads=HEADS, layers=2, dropout=0.0)
WORDS = np.random.default_rng(0).standard_normal((3, 9, WIDTH)).astype(np.float32)
SPEECH = np.random.default_rng(1).standard_normal((3, 14, WIDTH)).astype(np.float32)
REAL = np.arange(9) < np.array([[9], [6], [9]])
HEARD = np.arange(14) < np.array([[14], [9], [4]])
PACE = PaceConfig(chunk=3, wait=2, tokens=2)
PROMPT = 3
"""Entries in front of the first that is written."""
WRITTEN = np.maximum(np.arange(9) - PROMPT + 1, 0)[None].repeat(3, 0)


@pytest.fixture(scope="module")
def params():
    given = jnp.asarray(WORDS), jnp.asarray(REAL), Frames(jnp.asarray(SPEECH), jnp.asarray(HEARD))
    return random_params(CONFIG.make(), jax.random.key(3), *given)


@pytest.fixture(scope="module")
def reference(params):
    """The same weights in PyTorch's layers: pre-norm, rectifiers, as wide inside as outside, a last norm."""
    options = {"dropout": 0.0, "activation": "relu", "batch_first": True, "norm_first": True}
    layer = torch.nn.TransformerDecoderLayer(WIDTH, HEADS, WIDTH, **options)
    decoder = torch.nn.TransformerDecoder(layer, 2, norm=torch.nn.LayerNorm(WIDTH)).eval()
    decoder.load_state_dict(_named(params))
    return decoder


def _named(params):
    stacked, found = params["blocks"]["layers"], {}
    for i in range(2):
        own = jax.tree.map(lambda leaf, i=i: np.asarray(leaf)[i], stacked)
        for ours, theirs in (("attention", "self_attn"), ("cross_attention", "multihead_attn")):
            kernels = [own[ours][name]["kernel"].reshape(WIDTH, WIDTH).T for name in ("query", "key", "value")]
            biases = [own[ours][name]["bias"].reshape(-1) for name in ("query", "key", "value")]
            found[f"layers.{i}.{theirs}.in_proj_weight"] = np.concatenate(kernels)
            found[f"layers.{i}.{theirs}.in_proj_bias"] = np.concatenate(biases)
            found[f"layers.{i}.{theirs}.out_proj.weight"] = own[ours]["out"]["kernel"].reshape(WIDTH, WIDTH).T
            found[f"layers.{i}.{theirs}.out_proj.bias"] = own[ours]["out"]["bias"]
        for ours, theirs in (("up", "linear1"), ("down", "linear2")):
            found[f"layers.{i}.{theirs}.weight"] = own["mlp"][ours]["kernel"].T
            found[f"layers.{i}.{theirs}.bias"] = own["mlp"][ours]["bias"]
        for place, ours in enumerate(("attention_norm", "cross_norm", "mlp_norm"), 1):
            found[f"layers.{i}.norm{place}.weight"] = own[ours]["scale"]
            found[f"layers.{i}.norm{place}.bias"] = own[ours]["bias"]
    found |= {"norm.weight": params["final_norm"]["scale"], "norm.bias": params["final_norm"]["bias"]}
    return {name: torch.from_numpy(np.array(value)) for name, value in found.items()}


def expected(reference, seen=None):
    """With the residual around all layers. `seen` [B, T, S]: frames that each entry sees; None: all real ones."""
    causal = torch.triu(torch.ones(9, 9, dtype=torch.bool), 1)
    words, speech = torch.from_numpy(WORDS), torch.from_numpy(SPEECH)
    options = {"tgt_mask": causal, "tgt_key_padding_mask": torch.from_numpy(~REAL)}
    if seen is None:
        options["memory_key_padding_mask"] = torch.from_numpy(~HEARD)
    else:
        options["memory_mask"] = torch.from_numpy(~seen).repeat_interleave(HEADS, 0)
    with torch.no_grad():
        return (words + reference(words, speech, **options)).numpy()


def seen_at_pace():
    """Frames that each entry sees at the pace."""
    read = np.asarray(frames_read(jnp.asarray(WRITTEN), (PACE,), jnp.zeros(3, jnp.int32)))
    assert read[0].tolist() == [6, 6, 6, 6, 9, 9, 12, 12, 15]
    return HEARD[:, None] & (np.arange(14) < read[..., None])


@pytest.mark.parametrize("paced", [False, True])
def test_whole_rows_equal_pytorch_with_padding_of_words_and_speech(params, reference, paced):
    read = frames_read(jnp.asarray(WRITTEN), (None, PACE), jnp.ones(3, jnp.int32)) if paced else None
    garbage = Frames(jnp.where(HEARD[..., None], SPEECH, jnp.nan), jnp.asarray(HEARD))
    run = jax.jit(lambda p, *given: CONFIG.make().apply({"params": p}, *given))
    ours = run(params, WORDS, REAL, garbage, read)
    theirs = expected(reference, seen_at_pace() if paced else None)
    assert theirs[REAL].std() > 0.5
    np.testing.assert_allclose(ours[REAL], theirs[REAL], atol=TOLERANCE * np.abs(theirs).max())


@pytest.mark.parametrize("pace", [None, PACE], ids=["offline", "paced"])
def test_step_by_step_with_a_cache_it_is_the_same(params, reference, pace):
    module, speech = CONFIG.make(), Frames(jnp.asarray(SPEECH), jnp.asarray(HEARD))
    state = module.initial_state(3, 12, pace=pace)

    def extend(words, mask, state, speech=None):
        return module.apply({"params": params}, words, state, mask, speech, method="extend")

    out, state = jax.jit(extend)(WORDS[:, :PROMPT], REAL[:, :PROMPT], state, speech)
    found = [out]
    step = jax.jit(extend)
    for t in range(PROMPT, 9):
        out, state = step(WORDS[:, t : t + 1], REAL[:, t : t + 1], state)
        found.append(out)
    theirs = expected(reference, None if pace is None else seen_at_pace())
    ours = np.concatenate(found, axis=1)
    np.testing.assert_allclose(ours[REAL], theirs[REAL], atol=TOLERANCE * np.abs(theirs).max())
    again, _ = jax.jit(extend)(WORDS[:, :0], REAL[:, :0], state, speech)
    assert again.shape == (3, 0, WIDTH)
