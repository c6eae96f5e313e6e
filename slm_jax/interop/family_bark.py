"""A causal stage of Bark (Suno 2023): `BarkCoarseModel` of transformers, alone or in the folder of a whole `BarkModel`.

GPT-2 with exact GELU, a head of its own and, as released, no biases anywhere. Its semantic stage has the same form and
is read alone where it writes as many ids as it reads, which the released one (129,600 and 10,048) does not; the fine
stage reads whole rows of several books and is no decoder; EnCodec, which the folder also holds, is a model of its own.
"""

from slm_jax.interop.decoder_shapes import BLOCKS, abstract_params, boxed_params, plain
from slm_jax.interop.family import Family
from slm_jax.interop.hub_config import Hub, HubConfig, require_said
from slm_jax.interop.table import Rule, Table, norm, rule, weights
from slm_jax.interop.transforms import FLAT, SAME, Dense, Fused
from slm_jax.sequence_models.decoder_config import DecoderConfig

WHOLE, COARSE = "bark", "coarse_acoustics"
KINDS = (WHOLE, COARSE, "semantic")


def read_config(hub: Hub) -> DecoderConfig:
    """Our config of a `config.json`; of a whole Bark that of its coarse stage."""
    stage = hub.get(f"{COARSE}_config", {}) if hub.get("model_type") == WHOLE else hub
    fields = HubConfig(WHOLE, stage, {"tie_word_embeddings": (True, False)})  # the class has two tables either way
    width, vocabulary = fields.number("hidden_size", 768), fields.number("input_vocab_size", 10_048)
    written, bias = fields.number("output_vocab_size", 10_048), fields.flag("bias", True)
    fields.unless(written == vocabulary, "output_vocab_size", written, f"must be input_vocab_size {vocabulary}")
    dropout = fields.number("dropout", 0.0)
    return fields.make(
        DecoderConfig,
        vocabulary=vocabulary,
        layers=fields.number("num_layers", 12),
        width=width,
        heads=fields.number("num_heads", 12),
        hidden=4 * width,
        norm_bias=bias,
        activation="gelu",
        qkv_bias=bias,
        out_bias=bias,
        mlp_bias=bias,
        max_positions=fields.number("block_size", 1024),
        tied_head=False,
        dropout=dropout,
        attention_dropout=dropout,
        init_scale=fields.number("initializer_range", 0.02),
    )


def write_config(config: DecoderConfig) -> dict:
    """The `config.json` of our config, as a coarse stage."""
    config = plain(config)
    hub = {
        "model_type": COARSE,
        "architectures": ["BarkCoarseModel"],
        "input_vocab_size": config.vocabulary,
        "output_vocab_size": config.vocabulary,
        "block_size": config.max_positions,
        "hidden_size": config.width,
        "num_layers": config.layers,
        "num_heads": config.heads,
        "bias": config.qkv_bias,
        "dropout": config.dropout,
        "initializer_range": config.init_scale,
    }
    require_said(WHOLE, config, read_config(hub), ("activation_dropout",))
    return hub


def table(config: DecoderConfig, spelling: str = "transformers") -> Table:
    """The names of transformers."""
    at, qkv = "layers.{i}", tuple(f"{BLOCKS}/attention/{name}" for name in ("query", "key", "value"))
    flat, same = (FLAT, SAME) if config.qkv_bias else (None, None)
    biases = (Rule((f"{at}.attn.att_proj.bias",), tuple(f"{name}/bias" for name in qkv), Fused(FLAT)),)
    return Table(
        rules=(
            rule("input_embeds_layer.weight", "tokens/embedding"),
            rule("position_embeds_layer.weight", "places/embedding"),
            Rule((f"{at}.attn.att_proj.weight",), tuple(f"{name}/kernel" for name in qkv), Fused(Dense())),
            *(biases if flat is not None else ()),
            *weights(f"{at}.attn.out_proj", f"{BLOCKS}/attention/out", Dense(inputs=2), same),
            *weights(f"{at}.mlp.in_proj", f"{BLOCKS}/mlp/up", Dense(), same),
            *weights(f"{at}.mlp.out_proj", f"{BLOCKS}/mlp/down", Dense(), same),
            *norm(f"{at}.layernorm_1", f"{BLOCKS}/attention_norm", bias=config.norm_bias),
            *norm(f"{at}.layernorm_2", f"{BLOCKS}/mlp_norm", bias=config.norm_bias),
            *norm("layernorm_final", "final_norm", bias=config.norm_bias),
            rule("lm_head.weight", "head_kernel", Dense()),
        ),
        # the causal mask, which files keep as weights, and the other parts of a whole Bark
        ignored=(r"layers\.\d+\.attn\.bias", r"(semantic|fine_acoustics|codec_model)\..*"),
        renames=((rf"^{COARSE}\.", ""),),
    )


BARK = Family(
    name=WHOLE,
    config_type=DecoderConfig,
    spellings=("transformers",),
    matches=lambda hub: hub.get("model_type") in KINDS,
    read_config=read_config,
    write_config=write_config,
    table=table,
    abstract=abstract_params,
    boxed=boxed_params,
)
