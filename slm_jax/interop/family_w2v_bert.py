"""w2v-BERT 2.0 (`Wav2Vec2BertModel`): its config and the names of its weights. Heads are left aside.

How the filter bank is stacked stands in `preprocessor_config.json`; without one it has 80 bands.
"""

from itertools import chain
from typing import Any

from slm_jax.encoders.w2v_bert import W2VBERTConfig
from slm_jax.interop.family import Family
from slm_jax.interop.family_ssl import ANY_VALUE, abstract_params, boxed_params
from slm_jax.interop.hub_config import HUB_ACTIVATIONS, Hub, HubConfig, is_type, require_said
from slm_jax.interop.ssl_names import HEADS, LAYERS
from slm_jax.interop.table import Rule, Table, norm, rule, weights
from slm_jax.interop.transforms import FLAT, SAME, Conv, Dense, Pointwise
from slm_jax.nn.relative_key import RelativeKeyConfig

KIND = "wav2vec2-bert"
FIXED = {"layer_norm_eps": (1e-5,), "add_adapter": (False,), "use_intermediate_ffn_before_adapter": (False,)}
POSITIONS = "relative_key"
UNREAD = ("adapter_act", "rotary_embedding_base", "max_source_positions", *ANY_VALUE)
"""Of heads, of an adapter that is not there and of other kinds of positions."""
MELS = 80
PREPROCESSOR: dict[str, tuple] = {
    "feature_extractor_type": ("SeamlessM4TFeatureExtractor",),
    "processor_class": ("Wav2Vec2BertProcessor",),
    "sampling_rate": (16_000,),
    "padding_side": ("right",),
    "padding_value": (0, 1),  # never read: what is padded is masked
    "return_attention_mask": (False, True),
}
"""`preprocessor_config.json` beside its sizes: field -> what it may hold."""


def read_config(hub: Hub) -> W2VBERTConfig:
    """Our config; raises `UserError` for positions other than the published model's, and for an adapter."""
    fields = HubConfig(KIND, hub, FIXED)
    fields.read |= {*UNREAD, "position_embeddings_type"}
    positions = hub.get("position_embeddings_type", POSITIONS)  # null stands for none
    fields.unless(positions == POSITIONS, "position_embeddings_type", positions, f"only {POSITIONS!r} is supported")
    mels, stacked = _front_end(fields, fields.number("feature_projection_input_dim", 2 * MELS))
    masked = max(fields.number("mask_time_prob", 0.05), fields.number("mask_feature_prob", 0.0)) > 0
    return fields.make(
        W2VBERTConfig,
        mels=mels,
        stacked=stacked,
        layers=fields.number("num_hidden_layers", 24),
        width=fields.number("hidden_size", 1024),
        heads=fields.number("num_attention_heads", 16),
        hidden=fields.number("intermediate_size", 4096),
        kernel=fields.number("conv_depthwise_kernel_size", 31),
        position=RelativeKeyConfig(
            left=fields.number("left_max_position_embeddings", 64),
            right=fields.number("right_max_position_embeddings", 8),
        ),
        activation=fields.activation("hidden_act", "swish"),
        mask_embedding=masked,
        dropout=fields.number("hidden_dropout", 0.0),
        attention_dropout=fields.number("attention_dropout", 0.0),
        activation_dropout=fields.number("activation_dropout", 0.0),
        conv_dropout=fields.number("conformer_conv_dropout", 0.1),
        feature_dropout=fields.number("feat_proj_dropout", 0.0),
        layer_drop=fields.number("layerdrop", 0.1),
    )


def write_config(config: W2VBERTConfig) -> dict[str, Any]:
    """The `config.json` of our config, with the file beside it."""
    hub = {
        "model_type": KIND,
        "architectures": ["Wav2Vec2BertModel"],
        "feature_projection_input_dim": config.mels * config.stacked,
        "num_hidden_layers": config.layers,
        "hidden_size": config.width,
        "num_attention_heads": config.heads,
        "intermediate_size": config.hidden,
        "conv_depthwise_kernel_size": config.kernel,
        "position_embeddings_type": POSITIONS,
        "left_max_position_embeddings": config.position.left,
        "right_max_position_embeddings": config.position.right,
        "hidden_act": HUB_ACTIVATIONS[config.activation],
        "mask_time_prob": 0.05 if config.mask_embedding else 0.0,
        "hidden_dropout": config.dropout,
        "attention_dropout": config.attention_dropout,
        "activation_dropout": config.activation_dropout,
        "conformer_conv_dropout": config.conv_dropout,
        "feat_proj_dropout": config.feature_dropout,
        "layerdrop": config.layer_drop,
        "add_adapter": False,
        "preprocessor_config": {
            "feature_extractor_type": "SeamlessM4TFeatureExtractor",
            "feature_size": config.mels,
            "num_mel_bins": config.mels,
            "stride": config.stacked,
            "sampling_rate": 16_000,
            "padding_side": "right",
            "padding_value": 1,
            "return_attention_mask": True,
        },
    }
    require_said(KIND, config, read_config(hub), ("masks",))
    return hub


def table(config: W2VBERTConfig, spelling: str = "transformers") -> Table:
    """The names of `Wav2Vec2BertModel` and of the classes that put a head on it."""
    at, conv = "encoder.layers.{i}", "encoder.layers.{i}.conv_module"
    return Table(
        rules=(
            # optional: a checkpoint may keep the vector though its config says that nothing is masked
            rule("masked_spec_embed", "mask_embedding", optional=True),
            *norm("feature_projection.layer_norm", "feature_norm"),
            *weights("feature_projection.projection", "feature_projection", Dense(), SAME),
            *_block(f"{at}.ffn1", f"{LAYERS}/mlp_in"),
            *norm(f"{at}.self_attn_layer_norm", f"{LAYERS}/attention_norm"),
            *_attention(f"{at}.self_attn"),
            *norm(f"{conv}.layer_norm", f"{LAYERS}/conv_norm"),
            *weights(f"{conv}.pointwise_conv1", f"{LAYERS}/conv_in", Pointwise()),
            *weights(f"{conv}.depthwise_conv", f"{LAYERS}/conv", Conv()),
            *norm(f"{conv}.depthwise_layer_norm", f"{LAYERS}/filtered_norm"),
            *weights(f"{conv}.pointwise_conv2", f"{LAYERS}/conv_out", Pointwise()),
            *_block(f"{at}.ffn2", f"{LAYERS}/mlp_out"),
            *norm(f"{at}.final_layer_norm", f"{LAYERS}/final_norm"),
        ),
        ignored=HEADS["transformers"],
        renames=((r"^wav2vec2_bert\.", ""),),
    )


def _block(source: str, target: str) -> tuple[Rule, ...]:
    return (
        *norm(f"{source}_layer_norm", f"{target}_norm"),
        *weights(f"{source}.intermediate_dense", f"{target}/up", Dense(), SAME),
        *weights(f"{source}.output_dense", f"{target}/down", Dense(), SAME),
    )


def _attention(source: str) -> tuple[Rule, ...]:
    at = f"{LAYERS}/attention"
    into = (weights(f"{source}.linear_{name[0]}", f"{at}/{name}", Dense(), FLAT) for name in ("query", "key", "value"))
    return (
        *chain.from_iterable(into),
        *weights(f"{source}.linear_out", f"{at}/out", Dense(2), SAME),
        rule(f"{source}.distance_embedding.weight", f"{LAYERS}/relative_key/embedding"),
    )


def _front_end(fields: HubConfig, channels: int) -> tuple[int, int]:
    """Bands and how many frames are stacked, which must give the channels that the model reads."""
    given = fields.get("preprocessor_config", {})
    sizes = HubConfig(KIND, given)
    mels = sizes.number("num_mel_bins", sizes.number("feature_size", MELS))
    stacked = sizes.number("stride", max(channels // mels, 1))
    fits = mels * stacked == channels
    fields.unless(fits, "feature_projection_input_dim", channels, f"must be {stacked} frames of {mels} bands")
    for name, value in given.items():
        if name not in sizes.read and value is not None:
            allowed = PREPROCESSOR.get(name, ())
            rule_of = f"only {' or '.join(map(repr, allowed))} is supported" if allowed else "is not supported"
            fields.unless(value in allowed, f"preprocessor_config.{name}", value, rule_of)
    fields.faults.extend(sizes.faults)
    return mels, stacked


W2V_BERT = Family(
    name=KIND,
    config_type=W2VBERTConfig,
    spellings=("transformers",),
    matches=is_type(KIND),
    read_config=read_config,
    write_config=write_config,
    table=table,
    abstract=abstract_params,
    boxed=boxed_params,
    side_files=("preprocessor_config",),
)
