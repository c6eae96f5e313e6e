"""The GSLM recipe (fairseq `transformer_lm_big`) against its equations in PyTorch."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from slm_jax.sequence_models.presets import gslm_transformer_lm_big
from tests.contracts.checks import random_params

B, S, D, H = 2, 11, 24, 4


def oracle(params: dict, ids: np.ndarray, config) -> np.ndarray:
    """Pre-norm ReLU transformer; [sin; cos] positions from row 2; tokens times the root of the width; tied head."""
    import torch
    import torch.nn.functional as F

    p = jax.tree.map(lambda leaf: torch.tensor(np.asarray(leaf)), params)
    layers, table = p["blocks"]["layers"], p["tokens"]["embedding"]
    half = D // 2
    rates = torch.exp(torch.arange(half) * -(math.log(10000) / (half - 1)))
    angles = (torch.arange(S) + 2)[:, None] * rates[None]
    x = table[torch.tensor(ids)] * math.sqrt(D) + torch.cat([angles.sin(), angles.cos()], dim=1)
    ahead = torch.full((S, S), float("-inf")).triu(1)

    def norm(x, leaf, i=None):
        scale, bias = (leaf[k] if i is None else leaf[k][i] for k in ("scale", "bias"))
        return F.layer_norm(x, (D,), scale, bias, 1e-5)

    def split(x, leaf, i):
        y = x @ leaf["kernel"][i].reshape(D, D) + leaf["bias"][i].reshape(D)
        return y.reshape(B, S, H, D // H).transpose(1, 2)

    for i in range(config.layers):
        attention, mlp = layers["attention"], layers["mlp"]
        y = norm(x, layers["attention_norm"], i)
        q, k, v = (split(y, attention[name], i) for name in ("query", "key", "value"))
        y = torch.softmax(q @ k.transpose(2, 3) / math.sqrt(D // H) + ahead, dim=-1) @ v
        y = y.transpose(1, 2).reshape(B, S, D)
        x = x + y @ attention["out"]["kernel"][i].reshape(D, D) + attention["out"]["bias"][i]
        y = norm(x, layers["mlp_norm"], i)
        y = torch.relu(y @ mlp["up"]["kernel"][i] + mlp["up"]["bias"][i])
        x = x + y @ mlp["down"]["kernel"][i] + mlp["down"]["bias"][i]
    return (norm(x, p["final_norm"]) @ table.T).numpy()


def test_logits_equal_the_recipe_with_padding():
    pytest.importorskip("torch")
    shape = {"layers": 2, "width": D, "heads": H, "hidden": 40, "embed_scale": math.sqrt(D)}
    config = gslm_transformer_lm_big(50, **shape)
    assert config.vocabulary == 56
    model = config.make()
    ids = np.random.default_rng(0).integers(0, 56, (B, S))
    params = random_params(model, jax.random.key(0), jnp.asarray(ids))
    mask = np.arange(S) < np.array([11, 6])[:, None]
    ours = np.asarray(jax.jit(lambda p: model.apply({"params": p}, jnp.asarray(ids), mask=jnp.asarray(mask)))(params))
    wanted = oracle(params, ids, config)  # causal, so real entries do not see the padding on the right
    assert np.abs(ours - wanted)[mask].max() <= 1e-5 * np.abs(wanted).max()
