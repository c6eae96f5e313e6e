"""A loss over what is trained and what is kept apart is that of the whole."""

import jax
import jax.numpy as jnp
import numpy as np

from slm_jax.nn.lora import LoRAConfig, with_lora
from slm_jax.objectives.next_token import NextTokenConfig
from slm_jax.objectives.over_parts import OverParts
from slm_jax.parallel.sharding import unbox
from slm_jax.sequence_models.presets import llama


def test_a_frozen_base_counts_as_if_it_lay_there():
    model = llama("7b", vocabulary=20, layers=1, width=8, heads=2, kv_heads=2, hidden=12).make()
    adapted = with_lora(model, LoRAConfig(targets=".*/attention/query", rank=2))
    variables = adapted.init(jax.random.key(0), jnp.zeros((1, 2), jnp.int32))
    variables = unbox(variables)
    variables["lora"] = jax.tree.map(lambda leaf: leaf + 1.0, variables["lora"])
    batch, objective = {"ids": np.arange(8, dtype=np.int32)[None]}, NextTokenConfig().make(adapted)
    whole = objective(variables, batch, None)
    apart = OverParts(objective)(
        {"params": {}, "lora": variables["lora"]}, batch, None, {"frozen": variables["params"]}
    )
    np.testing.assert_allclose(apart.value(), whole.value(), rtol=1e-6)
    other = OverParts(objective)(
        {"params": {}, "lora": jax.tree.map(jnp.zeros_like, variables["lora"])},
        batch,
        None,
        {"frozen": variables["params"]},
    )
    assert abs(float(other.value() - whole.value())) > 1e-6
