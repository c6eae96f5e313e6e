"""MusicGen's decoder (Copet et al. 2023): `MusicgenForCausalLM` of transformers.

Sums the vectors of its codebooks, adds sinusoids whose cosines come first, and listens to a text by cross-attention;
attention and feed-forward maps have no biases. Its padding id, one more than there are codes, is our empty entry. What
a whole `MusicgenForConditionalGeneration` holds beside it (text encoder, codec) are models of their own.
"""

from typing import Any

from slm_jax.interop.family import Family
from slm_jax.interop.hub_config import HUB_ACTIVATIONS, Hub, HubConfig, is_type, require_said
from slm_jax.interop.stream_shapes import abstract_params, boxed_params
from slm_jax.interop.table import Rule, Table, norm, rule, weights
from slm_jax.interop.transforms import Dense
from slm_jax.sequence_models.decoder_config import DecoderConfig
from slm_jax.sequence_models.multi_stream import MultiStreamConfig

FIXED = {"audio_channels": (1,), "layerdrop": (0.0,), "tie_word_embeddings": (False,)}
LAYERS, MAPS = "body/blocks/layers", ("q_proj", "k_proj", "v_proj", "out_proj")


def read_config(hub: Hub) -> MultiStreamConfig:
    """Our config of a `config.json`."""
    fields = HubConfig("musicgen_decoder", hub, FIXED)
    width, codes = fields.number("hidden_size", 1024), fields.number("vocab_size", 2048)
    streams = (codes,) * fields.number("num_codebooks", 4)
    empty = fields.number("pad_token_id", codes)
    fields.unless(empty == codes, "pad_token_id", empty, f"must be vocab_size {codes}: the row of empty entries")
    scaled = fields.flag("scale_embedding", False)
    fields.read |= {"max_position_embeddings"}  # sinusoids are made for any length
    body = fields.make(
        DecoderConfig,
        vocabulary=1,
        layers=fields.number("num_hidden_layers", 24),
        width=width,
        heads=fields.number("num_attention_heads", 16),
        hidden=fields.number("ffn_dim", 4096),
        context_width=width,
        activation=fields.activation("activation_function", "gelu"),
        qkv_bias=False,
        out_bias=False,
        mlp_bias=False,
        positions="cosines_first",
        embed_scale=width**0.5 if scaled else 1.0,
        dropout=fields.number("dropout", 0.1),
        attention_dropout=fields.number("attention_dropout", 0.0),
        activation_dropout=fields.number("activation_dropout", 0.0),
        init_scale=fields.number("initializer_factor", 0.02),
    )
    return fields.make(MultiStreamConfig, streams=streams, body=body, blanks=True)


def write_config(config: MultiStreamConfig) -> dict[str, Any]:
    """The `config.json` of our config."""
    body, codes = config.body, config.vocabulary
    hub = {
        "model_type": "musicgen_decoder",
        "architectures": ["MusicgenForCausalLM"],
        "vocab_size": codes,
        "num_codebooks": len(config.streams),
        "pad_token_id": codes,
        "bos_token_id": codes,
        "hidden_size": body.width,
        "num_hidden_layers": body.layers,
        "num_attention_heads": body.heads,
        "ffn_dim": body.hidden,
        "activation_function": HUB_ACTIVATIONS[body.activation],
        "scale_embedding": body.embed_scale != 1.0,
        "tie_word_embeddings": False,
        "dropout": body.dropout,
        "attention_dropout": body.attention_dropout,
        "activation_dropout": body.activation_dropout,
        "initializer_factor": body.init_scale,
    }
    require_said(
        "musicgen_decoder", config, read_config(hub), (r"body\.(unroll|remat|dtype|vocabulary|max_positions)",)
    )
    return hub


def table(config: MultiStreamConfig, spelling: str = "transformers") -> Table:
    """The names of transformers."""
    root = "model.decoder"
    at = f"{root}.layers.{{i}}"
    books = range(len(config.streams))
    return Table(
        rules=(
            *(rule(f"{root}.embed_tokens.{k}.weight", f"tables_{k}/embedding") for k in books),
            *_attention(f"{at}.self_attn", "attention"),
            *norm(f"{at}.self_attn_layer_norm", f"{LAYERS}/attention_norm"),
            *_attention(f"{at}.encoder_attn", "cross_attention"),
            *norm(f"{at}.encoder_attn_layer_norm", f"{LAYERS}/cross_norm"),
            *weights(f"{at}.fc1", f"{LAYERS}/mlp/up", Dense()),
            *weights(f"{at}.fc2", f"{LAYERS}/mlp/down", Dense()),
            *norm(f"{at}.final_layer_norm", f"{LAYERS}/mlp_norm"),
            *norm(f"{root}.layer_norm", "body/final_norm"),
            *(rule(f"lm_heads.{k}.weight", f"head_{k}", Dense()) for k in books),
        ),
        # the table of sinusoids, which old files keep
        ignored=(rf"{root}\.embed_positions\.weights",),
    )


def _attention(source: str, name: str) -> tuple[Rule, ...]:
    query, key, value, out = (f"{source}.{each}" for each in MAPS)
    return (
        *weights(query, f"{LAYERS}/{name}/query", Dense()),
        *weights(key, f"{LAYERS}/{name}/key", Dense()),
        *weights(value, f"{LAYERS}/{name}/value", Dense()),
        *weights(out, f"{LAYERS}/{name}/out", Dense(inputs=2)),
    )


MUSICGEN = Family(
    name="musicgen_decoder",
    config_type=MultiStreamConfig,
    spellings=("transformers",),
    matches=is_type("musicgen_decoder"),
    read_config=read_config,
    write_config=write_config,
    table=table,
    abstract=abstract_params,
    boxed=boxed_params,
)
