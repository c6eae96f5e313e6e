"""The reference system on drawn weights, and the folder of its text LM."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from slm_jax.adapters.linear import LinearAdapterConfig
from slm_jax.checkpoints.model_folder import save_model
from slm_jax.core.types import Frames
from slm_jax.nn.lora import LoRAConfig, lora_initialise, with_lora
from tests.contracts.checks import random_params
from tests.reference import listener
from tests.reference.answerer import Answerer


def lm_params(scale: float = 0.3) -> Any:
    """Weights of the tiny text LM."""
    return random_params(listener.tiny_lm().make(), jax.random.key(3), jnp.zeros((1, 2), jnp.int32), scale=scale)


def write_lm(folder: Path) -> Path:
    """A folder with the text LM."""
    save_model(folder, listener.tiny_lm(), lm_params())
    return folder


def drawn_listener() -> listener.Listener:
    """Nothing is trained; adapters have an effect, since B is drawn too."""
    encoder, lm, lora = listener.tiny_encoder().make(), listener.tiny_lm().make(), LoRAConfig(targets=listener.TARGETS)
    answerer = Answerer(encoder, LinearAdapterConfig(width=32, stack=4).make(), with_lora(lm, lora))
    some = Frames(jnp.zeros((1, 4, 32)), jnp.ones((1, 4), bool))
    shapes = lora_initialise(lambda key: lm.init(key, jnp.zeros((1, 2), jnp.int32)), lora)(jax.random.key(0))["lora"]
    drawn = jax.tree.map(lambda leaf: 0.1 * jax.random.normal(jax.random.key(5), leaf.shape), shapes)
    duet = listener.duet_model().make()
    return listener.Listener(
        answerer=answerer,
        variables={"params": {"adapter": random_params(answerer.adapter, jax.random.key(1), some)}, "lora": drawn},
        frozen={"encoder": random_params(encoder, jax.random.key(2), jnp.zeros((1, 4000))), "lm": lm_params(0.6)},
        duet=duet,
        duet_variables={"params": random_params(duet, jax.random.key(4), jnp.zeros((1, 2, 3), jnp.int32))},
        rate_hz=16_000,
    )
