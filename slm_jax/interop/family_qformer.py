"""The Q-Former's trunk: `Blip2QFormerModel` of transformers, and as it lies in a checkpoint of SALMONN.

A checkpoint of SALMONN needs a `config.json` in transformers' form beside it, and holds other parts than this one:
queries, norms and map of the adapter, adapters of the language model.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax.core import meta

from slm_jax.adapters.qformer import QFormerConfig
from slm_jax.interop.family import Family
from slm_jax.interop.hub_config import HUB_ACTIVATIONS, Hub, HubConfig, is_type, require_said
from slm_jax.interop.table import Rule, Table, norm, weights
from slm_jax.interop.transforms import FLAT, SAME, Dense

NAME = "blip_2_qformer"
FIXED = {
    "use_qformer_text_input": (False,),
    "position_embedding_type": ("absolute",),  # of a text that is not there
}
ANY_VALUE = ("vocab_size", "max_position_embeddings")
"""Fields of the text input, whatever they hold."""
LAYER = "layer_{i}"


def read_config(hub: Hub) -> QFormerConfig:
    """Our config of a `config.json`."""
    fields = HubConfig(NAME, hub, FIXED)
    fields.read |= set(ANY_VALUE)
    return fields.make(
        QFormerConfig,
        context_width=fields.number("encoder_hidden_size", 1408),
        width=fields.number("hidden_size", 768),
        layers=fields.number("num_hidden_layers", 12),
        heads=fields.number("num_attention_heads", 12),
        hidden=fields.number("intermediate_size", 3072),
        cross_every=fields.number("cross_attention_frequency", 2),
        activation=fields.activation("hidden_act", "gelu"),
        norm_epsilon=fields.number("layer_norm_eps", 1e-12),
        dropout=fields.number("hidden_dropout_prob", 0.1),
        attention_dropout=fields.number("attention_probs_dropout_prob", 0.1),
        init_scale=fields.number("initializer_range", 0.02),
    )


def write_config(config: QFormerConfig) -> dict[str, Any]:
    """The `config.json` of our config."""
    hub = {
        "model_type": NAME,
        "architectures": ["Blip2QFormerModel"],
        "encoder_hidden_size": config.context_width,
        "hidden_size": config.width,
        "num_hidden_layers": config.layers,
        "num_attention_heads": config.heads,
        "intermediate_size": config.hidden,
        "cross_attention_frequency": config.cross_every,
        "hidden_act": HUB_ACTIVATIONS[config.activation],
        "layer_norm_eps": config.norm_epsilon,
        "hidden_dropout_prob": config.dropout,
        "attention_probs_dropout_prob": config.attention_dropout,
        "initializer_range": config.init_scale,
        "use_qformer_text_input": False,
    }
    require_said(NAME, config, read_config(hub))
    return hub


def table(config: QFormerConfig, spelling: str = "transformers") -> Table:
    """The names of one spelling: "transformers" or "salmonn"."""
    at = "encoder.layer.{i}"
    first, inner = {"transformers": ("layernorm", "attention"), "salmonn": ("embeddings.LayerNorm", "self")}[spelling]
    return Table(
        rules=(
            *norm(first, "query_norm"),
            *_attention(f"{at}.attention", inner, "attention"),
            *_attention(f"{at}.crossattention", inner, "cross_attention"),
            *weights(f"{at}.intermediate_query.dense", f"{LAYER}/mlp/up", Dense(), SAME),
            *weights(f"{at}.output_query.dense", f"{LAYER}/mlp/down", Dense(), SAME),
            *norm(f"{at}.output_query.LayerNorm", f"{LAYER}/mlp_norm"),
        ),
        # positions of the text, kept as a buffer
        ignored=(r"embeddings\.position_ids",),
        renames=((r"^(speech_Qformer\.)?bert\.", ""), (r"^qformer\.", "")),
    )


def boxed_params(config: QFormerConfig) -> Any:
    """Shapes and dtypes of the trunk's parameters with their logical axes; nothing is computed."""
    queries, context = (jax.ShapeDtypeStruct((1, 1, n), jnp.float32) for n in (config.width, config.context_width))
    return jax.eval_shape(config.make().init, jax.random.key(0), queries, context)["params"]


def abstract_params(config: QFormerConfig) -> Any:
    """Shapes and dtypes of the trunk's parameters."""
    return meta.unbox(boxed_params(config))


def _attention(source: str, inner: str, target: str) -> tuple[Rule, ...]:
    maps = (weights(f"{source}.{inner}.{n}", f"{LAYER}/{target}/{n}", Dense(), FLAT) for n in ("query", "key", "value"))
    return (
        *(rule for rules in maps for rule in rules),
        *weights(f"{source}.output.dense", f"{LAYER}/{target}/out", Dense(2), SAME),
        *norm(f"{source}.output.LayerNorm", f"{LAYER}/{target}_norm"),
    )


QFORMER = Family(
    name=NAME,
    config_type=QFormerConfig,
    spellings=("transformers", "salmonn"),
    matches=is_type(NAME),
    read_config=read_config,
    write_config=write_config,
    table=table,
    abstract=abstract_params,
    boxed=boxed_params,
)
