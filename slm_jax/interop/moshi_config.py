"""What Moshi's configs say: `config.json` of transformers, and Kyutai's own settings."""

from typing import Any

from slm_jax.interop.hub_config import HUB_ACTIVATIONS, Hub, HubConfig, require_said
from slm_jax.sequence_models.decoder_config import DecoderConfig
from slm_jax.sequence_models.depth import DepthConfig
from slm_jax.sequence_models.multi_stream import MultiStreamConfig
from slm_jax.sequence_models.temporal_depth import TemporalDepthConfig

FIXED = {"tie_word_embeddings": (False,)}
FORM: dict[str, Any] = {
    "vocabulary": 1,
    "norm": "rms",
    "gated": True,
    "positions": "rope",
    "tied_head": True,
    "qkv_bias": False,
    "out_bias": False,
    "mlp_bias": False,
}
"""Of the larger transformer, whatever its size."""
KYUTAI: dict[str, tuple] = {
    "causal": (True,),
    "gating": ("silu",),
    "norm": ("rms_norm_f32",),
    "positional_embedding": ("rope",),
    "depformer_multi_linear": (True,),
    "depformer_gating": ("silu",),
    "depformer_pos_emb": ("none",),
    "depformer_weights_per_step": (True,),
    "cross_attention": (False,),
    "demux_second_text_stream": (False,),
}
"""Fields of Kyutai's own settings that have to be as in the released Moshi."""
NAMES = ("moshi_name", "mimi_name", "tokenizer_name", "depformer_context", "depformer_max_period", "model_id")
"""What says nothing of the model."""


def read_config(hub: Hub) -> TemporalDepthConfig:
    """Our config of a `config.json`, or of the settings beside Kyutai's own weights."""
    if "dep_q" in hub:
        return _read_kyutai(hub)
    fields = HubConfig("moshi", hub, FIXED)
    codec = fields.get("audio_encoder_config", {})
    small = HubConfig("moshi (depth)", fields.get("depth_decoder_config", {}), FIXED)
    words, books = fields.number("vocab_size", 32_000), fields.number("num_codebooks", 8)
    codes = fields.number("audio_vocab_size", int(codec.get("codebook_size", 2048)))
    fields.read |= {"max_position_embeddings"}  # rotary positions have no end, and the window is a field of its own
    body = _body(fields)
    depth = _depth(small, books)
    temporal = fields.make(MultiStreamConfig, streams=(words, *[codes] * (2 * books)), body=body, blanks=True, heads=1)
    return TemporalDepthConfig(temporal=temporal, depth=depth, written=1 + books)


def _body(fields: HubConfig) -> DecoderConfig:
    width, heads = fields.number("hidden_size", 4096), fields.number("num_attention_heads", 32)
    groups, channels = fields.number("num_key_value_heads", heads), fields.number("head_dim", width // heads)
    rope = {**fields.get("rope_parameters", {})}
    kind = rope.pop("rope_type", "default")
    base = rope.pop("rope_theta", fields.number("rope_theta", 10_000.0))
    fields.unless(kind == "default" and not rope, "rope_parameters", kind, "must be default")
    return fields.make(
        DecoderConfig,
        **FORM,
        layers=fields.number("num_hidden_layers", 32),
        width=width,
        heads=heads,
        kv_heads=groups,
        head_width=None if channels * heads == width else channels,
        hidden=fields.number("ffn_dim", 22_528) // 2,
        norm_epsilon=fields.number("rms_norm_eps", 1e-8),
        activation=fields.activation("hidden_act", "silu"),
        rope_base=float(base),
        window=fields.number("sliding_window", 3000),
        attention_dropout=fields.number("attention_dropout", 0.0),
        init_scale=fields.number("initializer_range", 0.02),
    )


def _depth(fields: HubConfig, books: int) -> DepthConfig:
    width, heads = fields.number("hidden_size", 1024), fields.number("num_attention_heads", 16)
    for name, wanted in (("num_key_value_heads", heads), ("head_dim", width // heads), ("num_codebooks", books)):
        value = fields.number(name, wanted)
        fields.unless(value == wanted, name, value, f"must be {wanted}")
    window = fields.number("sliding_window", 8)
    fields.unless(window >= books, "sliding_window", window, f"must reach over all {books} books")
    # what the larger model says, and bounds that its few steps do not reach
    fields.read |= {"vocab_size", "audio_vocab_size", "input_size", "max_position_embeddings"}
    fields.unless(fields.number("attention_dropout", 0.0) == 0, "attention_dropout", "above 0", "must be 0")
    return fields.make(
        DepthConfig,
        width=width,
        layers=fields.number("num_hidden_layers", 6),
        heads=heads,
        hidden=fields.number("ffn_dim", 5632) // 2,
        norm_epsilon=fields.number("rms_norm_eps", 1e-8),
        activation=fields.activation("hidden_act", "silu"),
        init_scale=fields.number("initializer_range", 0.02),
    )


def _read_kyutai(hub: Hub) -> TemporalDepthConfig:
    """`moshi_7b_*.json`; delays are the scheme's business, ids of padding the text's."""
    fields = HubConfig("moshi (kyutai)", hub, KYUTAI)
    fields.read |= {"delays", "existing_text_padding_id", "existing_text_end_padding_id", *NAMES}
    width, small = fields.number("dim", 4096), fields.number("depformer_dim", 1024)
    wide = int(fields.number("hidden_scale", 4.125) * width)
    deep = fields.number("depformer_dim_feedforward", int(fields.number("hidden_scale", 4.125) * small))
    heads, books, codes = fields.number("num_heads", 32), fields.number("dep_q", 8), fields.number("card", 2048)
    streams = (fields.number("text_card", 32_000), *[codes] * fields.number("n_q", 16))
    depth = DepthConfig(
        width=small,
        layers=fields.number("depformer_num_layers", 6),
        heads=fields.number("depformer_num_heads", 16),
        hidden=_gate(small, deep),
    )
    body = fields.make(
        DecoderConfig,
        **FORM,
        layers=fields.number("num_layers", 32),
        width=width,
        heads=heads,
        kv_heads=heads,
        hidden=_gate(width, wide),
        norm_epsilon=1e-8,
        activation="silu",
        rope_base=float(fields.number("max_period", 10_000.0)),
        window=fields.number("context", 3000),
    )
    temporal = fields.make(MultiStreamConfig, streams=streams, body=body, blanks=True, heads=1)
    return TemporalDepthConfig(temporal=temporal, depth=depth, written=1 + books)


def kyutai_settings(config: TemporalDepthConfig) -> dict[str, Any]:
    """What Kyutai's `LMModel` is made of, from ours; delays are those of the released models."""
    body, depth, books = config.body, config.depth, config.count - 1
    own = (0, *[1] * (books - 1))
    return {
        "dim": body.width,
        "text_card": config.streams[0],
        "n_q": len(config.streams) - 1,
        "dep_q": books,
        "card": config.streams[-1],
        "num_heads": body.heads,
        "num_layers": body.layers,
        "hidden_scale": -(-3 * body.hidden // 2) / body.width,
        "context": body.window,
        "max_period": body.rope_base,
        "depformer_dim": depth.width,
        "depformer_dim_feedforward": -(-3 * depth.hidden // 2),
        "depformer_num_heads": depth.heads,
        "depformer_num_layers": depth.layers,
        "depformer_context": books,
        "delays": [0, *own, *own],
        **{name: values[0] for name, values in KYUTAI.items()},
    }


def _gate(width: int, feedforward: int) -> int:
    """Channels of the gate that stand for so many of a plain block."""
    return 21 * width // 8 if feedforward == 4 * width else 2 * feedforward // 3


def write_config(config: TemporalDepthConfig) -> dict[str, Any]:
    """The `config.json` of our config."""
    body, depth, books = config.body, config.depth, config.count - 1
    sizes = {"vocab_size": config.streams[0], "audio_vocab_size": config.streams[-1], "num_codebooks": books}
    hub = {
        "model_type": "moshi",
        "architectures": ["MoshiForConditionalGeneration"],
        **sizes,
        "hidden_size": body.width,
        "num_hidden_layers": body.layers,
        "num_attention_heads": body.heads,
        "num_key_value_heads": body.groups,
        "head_dim": body.channels,
        "ffn_dim": 2 * body.hidden,
        "rms_norm_eps": body.norm_epsilon,
        "hidden_act": HUB_ACTIVATIONS[body.activation],
        "rope_theta": body.rope_base,
        "sliding_window": body.window,
        "attention_dropout": body.attention_dropout,
        "initializer_range": body.init_scale,
        "tie_word_embeddings": False,
        "audio_encoder_config": {"model_type": "mimi"},
        "depth_decoder_config": {
            "model_type": "moshi_depth",
            **sizes,
            "input_size": body.width,
            "hidden_size": depth.width,
            "num_hidden_layers": depth.layers,
            "num_attention_heads": depth.heads,
            "ffn_dim": 2 * depth.hidden,
            "rms_norm_eps": depth.norm_epsilon,
            "hidden_act": HUB_ACTIVATIONS[depth.activation],
            "sliding_window": max(8, books),
            "initializer_range": depth.init_scale,
        },
    }
    running = r"(temporal\.body|depth)\.(unroll|remat|dtype)"
    unsaid = r"temporal\.body\.(dropout|activation_dropout|max_positions)"
    require_said("moshi", _plain(config), _plain(read_config(hub)), (running, unsaid))
    return hub


def _plain(config: TemporalDepthConfig) -> TemporalDepthConfig:
    """With what may be said in two ways said in one."""
    body = config.body
    body = body.replace(
        kv_heads=None if body.groups == body.heads else body.groups,
        head_width=None if body.channels * body.heads == body.width else body.channels,
    )
    return config.replace(temporal=config.temporal.replace(body=body), written=config.count)
