"""OPT (Zhang et al. 2022): `OPTForCausalLM` of transformers, with what is odd about the 350M size.

Positions begin at row 2 of their table. The 350M size normalises after each half of a layer, has no norm at the end,
and a token table narrower than the model with a map on either side.
"""

from slm_jax.interop.decoder_shapes import BLOCKS, abstract_params, boxed_params, plain, projections
from slm_jax.interop.family import Family
from slm_jax.interop.hub_config import HUB_ACTIVATIONS, Hub, HubConfig, is_type, require_said
from slm_jax.interop.table import Table, norm, rule, weights
from slm_jax.interop.transforms import SAME, Dense
from slm_jax.sequence_models.decoder_config import DecoderConfig

OFFSET = 2
FIXED = {"layer_norm_elementwise_affine": (True,), "layerdrop": (0.0,), "activation_dropout": (0.0,)}


def read_config(hub: Hub) -> DecoderConfig:
    """Our config of a `config.json`."""
    fields = HubConfig("opt", hub, FIXED)
    width, pre = fields.number("hidden_size", 768), fields.flag("do_layer_norm_before", True)
    table_width, bias = fields.number("word_embed_proj_dim", width), fields.flag("enable_bias", True)
    without = fields.flag("_remove_final_layer_norm", False)
    return fields.make(
        DecoderConfig,
        vocabulary=fields.number("vocab_size", 50272),
        layers=fields.number("num_hidden_layers", 12),
        width=width,
        heads=fields.number("num_attention_heads", 12),
        hidden=fields.number("ffn_dim", 3072),
        embed_width=None if table_width == width else table_width,
        norm_order="pre" if pre else "post",
        final_norm=pre and not without,
        activation=fields.activation("activation_function", "relu"),
        qkv_bias=bias,
        out_bias=bias,
        mlp_bias=bias,
        position_offset=OFFSET,
        max_positions=fields.number("max_position_embeddings", 2048),
        tied_head=fields.flag("tie_word_embeddings", True),
        dropout=fields.number("dropout", 0.1),
        attention_dropout=fields.number("attention_dropout", 0.0),
        init_scale=fields.number("init_std", 0.02),
    )


def write_config(config: DecoderConfig) -> dict:
    """The `config.json` of our config."""
    config = plain(config)
    pre = config.norm_order == "pre"
    hub = {
        "model_type": "opt",
        "architectures": ["OPTForCausalLM"],
        "vocab_size": config.vocabulary,
        "hidden_size": config.width,
        "num_hidden_layers": config.layers,
        "num_attention_heads": config.heads,
        "ffn_dim": config.hidden,
        "word_embed_proj_dim": config.table_width,
        "max_position_embeddings": config.max_positions,
        "do_layer_norm_before": pre,
        "_remove_final_layer_norm": pre and not config.final_norm,
        "activation_function": HUB_ACTIVATIONS[config.activation],
        "enable_bias": config.qkv_bias,
        "tie_word_embeddings": config.tied_head,
        "dropout": config.dropout,
        "attention_dropout": config.attention_dropout,
        "init_std": config.init_scale,
    }
    require_said("opt", config, read_config(hub), ("activation_dropout",))
    return hub


def table(config: DecoderConfig, spelling: str = "transformers") -> Table:
    """The names of transformers, with or without the outer `model.`."""
    root, at = "model.decoder", "model.decoder.layers.{i}"
    head = () if config.tied_head else (rule("lm_head.weight", "head_kernel", Dense()),)
    return Table(
        rules=(
            rule(f"{root}.embed_tokens.weight", "tokens/embedding"),
            rule(f"{root}.embed_positions.weight", "places/embedding"),
            *weights(f"{root}.project_in", "project_in", Dense()),
            *projections(f"{at}.self_attn", ("q_proj", "k_proj", "v_proj", "out_proj")),
            *norm(f"{at}.self_attn_layer_norm", f"{BLOCKS}/attention_norm"),
            *weights(f"{at}.fc1", f"{BLOCKS}/mlp/up", Dense(), SAME),
            *weights(f"{at}.fc2", f"{BLOCKS}/mlp/down", Dense(), SAME),
            *norm(f"{at}.final_layer_norm", f"{BLOCKS}/mlp_norm"),
            *norm(f"{root}.final_layer_norm", "final_norm"),
            *weights(f"{root}.project_out", "project_out", Dense()),
            *head,
        ),
        tied={"lm_head.weight": f"{root}.embed_tokens.weight"} if config.tied_head else {},
        renames=((r"^lm\.", ""), (r"^decoder\.", "model.decoder.")),
    )


OPT = Family(
    name="opt",
    config_type=DecoderConfig,
    spellings=("transformers",),
    matches=is_type("opt"),
    read_config=read_config,
    write_config=write_config,
    table=table,
    abstract=abstract_params,
    boxed=boxed_params,
)
