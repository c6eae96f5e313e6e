"""GPT-2 (Radford et al. 2019): `GPT2LMHeadModel` of transformers."""

from slm_jax.interop.decoder_shapes import BLOCKS, abstract_params, boxed_params, plain
from slm_jax.interop.family import Family
from slm_jax.interop.hub_config import HUB_ACTIVATIONS, Hub, HubConfig, is_type, require_said
from slm_jax.interop.table import Rule, Table, norm, rule, weights
from slm_jax.interop.transforms import FLAT, SAME, Dense, Fused
from slm_jax.sequence_models.decoder_config import DecoderConfig

FIXED = {
    "scale_attn_weights": (True,),
    "scale_attn_by_inverse_layer_idx": (False,),
    "reorder_and_upcast_attn": (False, True),  # the same formula in another order of float operations
    # these belong to a head with weights of its own, which would be named
    "summary_type": ("cls_index",),
    "summary_use_proj": (True,),
    "summary_activation": (),
    "summary_first_dropout": (0.1,),
    "summary_proj_to_labels": (True,),
}


def read_config(hub: Hub) -> DecoderConfig:
    """Our config of a `config.json`."""
    fields = HubConfig("gpt2", hub, FIXED)
    width, dropout = fields.number("n_embd", 768), fields.number("resid_pdrop", 0.1)
    embedding = fields.number("embd_pdrop", 0.1)
    fields.unless(embedding == dropout, "embd_pdrop", embedding, f"must equal resid_pdrop {dropout}: one rate is both")
    places = fields.number("n_positions", 1024)
    context = fields.number("n_ctx", places)
    fields.unless(context == places, "n_ctx", context, f"must equal n_positions {places}")
    return fields.make(
        DecoderConfig,
        vocabulary=fields.number("vocab_size", 50257),
        layers=fields.number("n_layer", 12),
        width=width,
        heads=fields.number("n_head", 12),
        hidden=fields.number("n_inner", 4 * width),
        norm_epsilon=fields.number("layer_norm_epsilon", 1e-5),
        activation=fields.activation("activation_function", "gelu_new"),
        max_positions=places,
        tied_head=fields.flag("tie_word_embeddings", True),
        dropout=dropout,
        attention_dropout=fields.number("attn_pdrop", 0.1),
        init_scale=fields.number("initializer_range", 0.02),
    )


def write_config(config: DecoderConfig) -> dict:
    """The `config.json` of our config."""
    config = plain(config)
    hub = {
        "model_type": "gpt2",
        "architectures": ["GPT2LMHeadModel"],
        "vocab_size": config.vocabulary,
        "n_positions": config.max_positions,
        "n_embd": config.width,
        "n_layer": config.layers,
        "n_head": config.heads,
        "n_inner": None if config.hidden == 4 * config.width else config.hidden,
        "activation_function": HUB_ACTIVATIONS[config.activation],
        "resid_pdrop": config.dropout,
        "embd_pdrop": config.dropout,
        "attn_pdrop": config.attention_dropout,
        "layer_norm_epsilon": config.norm_epsilon,
        "initializer_range": config.init_scale,
        "tie_word_embeddings": config.tied_head,
    }
    require_said("gpt2", config, read_config(hub), ("activation_dropout",))
    return hub


def table(config: DecoderConfig, spelling: str = "transformers") -> Table:
    """The names of transformers; its Conv1D keeps `[in, out]` and query, key and value in one."""
    at = "transformer.h.{i}"
    stored, heads = Dense(transposed=False), tuple(f"{BLOCKS}/attention/{n}" for n in ("query", "key", "value"))
    head = () if config.tied_head else (rule("lm_head.weight", "head_kernel", Dense()),)
    return Table(
        rules=(
            rule("transformer.wte.weight", "tokens/embedding"),
            rule("transformer.wpe.weight", "places/embedding"),
            Rule((f"{at}.attn.c_attn.weight",), tuple(f"{n}/kernel" for n in heads), Fused(stored, axis=1)),
            Rule((f"{at}.attn.c_attn.bias",), tuple(f"{n}/bias" for n in heads), Fused(FLAT)),
            *weights(f"{at}.attn.c_proj", f"{BLOCKS}/attention/out", Dense(2, transposed=False), SAME),
            *weights(f"{at}.mlp.c_fc", f"{BLOCKS}/mlp/up", stored, SAME),
            *weights(f"{at}.mlp.c_proj", f"{BLOCKS}/mlp/down", stored, SAME),
            *norm(f"{at}.ln_1", f"{BLOCKS}/attention_norm"),
            *norm(f"{at}.ln_2", f"{BLOCKS}/mlp_norm"),
            *norm("transformer.ln_f", "final_norm"),
            *head,
        ),
        # the causal mask and its fill value, which old files keep as weights
        ignored=(r"transformer\.h\.\d+\.attn\.(bias|masked_bias)",),
        tied={"lm_head.weight": "transformer.wte.weight"} if config.tied_head else {},
        renames=((r"^lm\.", ""), (r"^(wte|wpe|h|ln_f)\.", r"transformer.\1.")),
    )


GPT2 = Family(
    name="gpt2",
    config_type=DecoderConfig,
    spellings=("transformers",),
    matches=is_type("gpt2"),
    read_config=read_config,
    write_config=write_config,
    table=table,
    abstract=abstract_params,
    boxed=boxed_params,
)
