"""BEATs: its config and the names of its weights.

A checkpoint is one file of `torch.save` with `cfg` and `model`. What `cfg` holds belongs into a `config.json` beside
it, with `"model_type": "beats"`. The classifier of a fine-tuned one is left aside.
"""

from typing import Any

from slm_jax.encoders.beats import BEATsConfig
from slm_jax.encoders.positional_conv import PositionalConvConfig
from slm_jax.interop.family import Family
from slm_jax.interop.family_ssl import abstract_params, boxed_params
from slm_jax.interop.hub_config import Hub, HubConfig, is_type, require_said
from slm_jax.interop.ssl_names import NAMES, RENAMES, layer_rules, position_rules
from slm_jax.interop.table import Rule, Table, norm, rule, weights
from slm_jax.interop.transforms import SAME, Copies, Dense, Patches
from slm_jax.nn.relative_bias import RelativeBiasConfig

FIXED = {"activation_fn": ("gelu",), "layer_norm_first": (False,), "conv_bias": (False,)}
REQUIRED = ("deep_norm", "relative_position_embedding", "gru_rel_pos")
"""Flags that every published model sets, though the class has them off."""
ANY_VALUE = (
    # the classifier of a fine-tuned model, which is no part of an encoder
    *("finetuned_model", "predictor_dropout", "predictor_class"),
    # gradients of lower layers in fine-tuning
    "layer_wise_gradient_decay_ratio",
)
CLASSIFIER = (r"predictor\.(weight|bias)",)


def read_config(hub: Hub) -> BEATsConfig:
    """The config of a checkpoint's `cfg`; fields that are absent have the defaults of the published class."""
    fields = HubConfig("beats", hub, FIXED)
    fields.read |= set(ANY_VALUE)
    for name in REQUIRED:
        fields.unless(fields.flag(name, False), name, fields.get(name, False), "only true is supported")
    width, patch_width = fields.number("encoder_embed_dim", 768), fields.number("embed_dim", 512)
    rule = "must differ from encoder_embed_dim: a model without a projection between the two is not supported"
    fields.unless(patch_width != width, "embed_dim", patch_width, rule)
    return fields.make(
        BEATsConfig,
        patch=fields.number("input_patch_size", 16),
        patch_width=patch_width,
        position=PositionalConvConfig(
            kernel=fields.number("conv_pos", 128), groups=fields.number("conv_pos_groups", 16)
        ),
        relative_bias=RelativeBiasConfig(
            buckets=fields.number("num_buckets", 320), max_distance=fields.number("max_distance", 1280)
        ),
        layers=fields.number("encoder_layers", 12),
        width=width,
        heads=fields.number("encoder_attention_heads", 12),
        hidden=fields.number("encoder_ffn_embed_dim", 3072),
        dropout=fields.number("dropout", 0.1),
        attention_dropout=fields.number("attention_dropout", 0.1),
        activation_dropout=fields.number("activation_dropout", 0.0),
        feature_dropout=fields.number("dropout_input", 0.0),
        layer_drop=fields.number("encoder_layerdrop", 0.0),
    )


def write_config(config: BEATsConfig) -> dict[str, Any]:
    """The fields of `cfg`; raises `UserError` for what they can't say."""
    groups = config.position.groups or config.width
    hub = {
        "model_type": "beats",
        "input_patch_size": config.patch,
        "embed_dim": config.patch_width,
        "conv_pos": config.position.kernel,
        "conv_pos_groups": groups,
        "num_buckets": config.relative_bias.buckets,
        "max_distance": config.relative_bias.max_distance,
        "encoder_layers": config.layers,
        "encoder_embed_dim": config.width,
        "encoder_attention_heads": config.heads,
        "encoder_ffn_embed_dim": config.hidden,
        "dropout": config.dropout,
        "attention_dropout": config.attention_dropout,
        "activation_dropout": config.activation_dropout,
        "dropout_input": config.feature_dropout,
        "encoder_layerdrop": config.layer_drop,
        **dict.fromkeys(REQUIRED, True),
        "finetuned_model": False,
    }
    plain = config.replace(position=config.position.replace(groups=groups))
    # of no consequence: how the positional convolution is computed, and what padding does
    require_said("beats", plain, read_config(hub), ("position.form", "reference_padding"))
    return hub


def table(config: BEATsConfig, spelling: str = "original") -> Table:
    """The names of the published checkpoints."""
    names: dict[str, Any] = NAMES["fairseq"]
    return Table(
        rules=(
            rule("patch_embedding.weight", "front_end/patch_embedding/kernel", Patches(config.patch)),
            *norm(names["feature_norm"], "feature_norm"),
            *weights(names["projection"], "feature_projection", Dense(), SAME),
            *position_rules(names["position"], names["length, direction"]),
            *norm("encoder.layer_norm", "embedding_norm"),
            *_buckets(config.layers, f"{names['attention']}.{names['buckets']}"),
            *layer_rules(names),
        ),
        ignored=CLASSIFIER,
        renames=RENAMES["fairseq"],
    )


def _buckets(layers: int, name: str) -> tuple[Rule, ...]:
    """The one table, which every layer has under its own name; in the first layer alone it is read too."""
    each = tuple(f"encoder.layers.{i}.{name}" for i in range(layers))
    return (Rule(each, ("relative_bias/embedding",), Copies(layers)), rule(each[0], "relative_bias/embedding"))


BEATS = Family(
    name="beats",
    config_type=BEATsConfig,
    spellings=("original",),
    matches=is_type("beats"),
    read_config=read_config,
    write_config=write_config,
    table=table,
    abstract=abstract_params,
    boxed=boxed_params,
)
