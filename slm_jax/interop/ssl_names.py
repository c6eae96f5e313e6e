"""What the weights of wav2vec 2.0, HuBERT and WavLM are called; BEATs has fairseq's names for what it shares.

Spelling "transformers" is that of `Wav2Vec2Model`, `HubertModel`, `WavLMModel` and of the classes that put a head on
them; "fairseq" that of the original checkpoints. Heads are left aside.
"""

from collections.abc import Mapping
from typing import Any

from slm_jax.encoders.ssl import SSLEncoderConfig
from slm_jax.interop.table import Rule, Table, norm, rule, weights
from slm_jax.interop.transforms import FLAT, SAME, Conv, Dense, Reshape, Unfolded

LAYERS = "stack/layers"
HEADS = {
    "transformers": (
        # connectionist temporal classification
        r"lm_head\.(weight|bias)",
        # contrastive pre-training
        r"quantizer\.(codevectors|weight_proj\.(weight|bias))",
        r"project_(hid|q)\.(weight|bias)",
        # classification of utterances, frames and speakers
        r"(projector|classifier)\.(weight|bias)",
        r"layer_weights",
        r"tdnn\.\d+\.kernel\.(weight|bias)",
        r"feature_extractor\.(weight|bias)",
        r"objective\.weight",
    ),
    "fairseq": (
        # HuBERT's targets and the projection that is compared with them; wav2vec's projection has the same name
        r"label_embs_concat",
        r"final_proj\.(weight|bias)",
        # contrastive pre-training
        r"quantizer\.(vars|weight_proj(\.\d+)*\.(weight|bias))",
        r"project_q\.(weight|bias)",
        # connectionist temporal classification
        r"proj\.(weight|bias)",
    ),
}
NAMES = {
    "transformers": {
        "mask": "masked_spec_embed",
        "conv": "feature_extractor.conv_layers.{i}.conv",
        "group": "feature_extractor.conv_layers.{i}.layer_norm",
        "layer": "feature_extractor.conv_layers.{i}.layer_norm",
        "feature_norm": "feature_projection.layer_norm",
        "projection": "feature_projection.projection",
        "position": "encoder.pos_conv_embed.conv",
        "length, direction": ("parametrizations.weight.original0", "parametrizations.weight.original1"),
        "attention": "attention",
        "attention_norm": "layer_norm",
        "up, down": ("feed_forward.intermediate_dense", "feed_forward.output_dense"),
        "buckets": "rel_attn_embed.weight",
        "gate": "gru_rel_pos_linear",
        "gate constant": "gru_rel_pos_const",
    },
    "fairseq": {
        "mask": "mask_emb",
        "conv": "feature_extractor.conv_layers.{i}.0",
        "group": "feature_extractor.conv_layers.{i}.2",
        "layer": "feature_extractor.conv_layers.{i}.2.1",
        "feature_norm": "layer_norm",
        "projection": "post_extract_proj",
        "position": "encoder.pos_conv.0",
        "length, direction": ("weight_g", "weight_v"),
        "attention": "self_attn",
        "attention_norm": "self_attn_layer_norm",
        "up, down": ("fc1", "fc2"),
        "buckets": "relative_attention_bias.weight",
        "gate": "grep_linear",
        "gate constant": "grep_a",
    },
}
RENAMES = {
    "transformers": (
        (r"^(wav2vec2|hubert|wavlm)\.", ""),
        # how PyTorch spelled weight norm before 2.0
        (r"\.weight_g$", ".parametrizations.weight.original0"),
        (r"\.weight_v$", ".parametrizations.weight.original1"),
    ),
    "fairseq": (
        (r"^w2v_encoder\.", ""),
        (r"^w2v_model\.", ""),
        (r"\.parametrizations\.weight\.original0$", ".weight_g"),
        (r"\.parametrizations\.weight\.original1$", ".weight_v"),
    ),
}


def table(config: SSLEncoderConfig, spelling: str = "transformers") -> Table:
    """The names of one spelling."""
    names: dict[str, Any] = NAMES[spelling]
    return Table(
        rules=(
            # optional: a checkpoint may keep the vector though its config says that nothing is masked
            rule(names["mask"], "mask_embedding", optional=True),
            rule(f"{names['conv']}.weight", "front_end/conv_{i}/kernel", Conv()),
            rule(f"{names['conv']}.bias", "front_end/conv_{i}/bias"),
            *norm(names[config.extractor_norm], "front_end/norm_{i}"),
            *norm(names["feature_norm"], "feature_norm"),
            *weights(names["projection"], "feature_projection", Dense(), SAME),
            *position_rules(names["position"], names["length, direction"]),
            *norm("encoder.layer_norm", "final_norm" if config.pre_norm else "embedding_norm"),
            # the table of all layers stands in the first one
            rule(f"encoder.layers.0.{names['attention']}.{names['buckets']}", "relative_bias/embedding"),
            *layer_rules(names),
        ),
        ignored=HEADS[spelling],
        renames=RENAMES[spelling],
    )


def position_rules(source: str, parts: tuple[str, str]) -> tuple[Rule, ...]:
    """The positional convolution: weight norm over the taps, or the plain weight that some exports have made of it."""
    target = ("position/conv/weight_g", "position/conv/weight_v")
    return (
        Rule(tuple(f"{source}.{part}" for part in parts), target, Conv()),
        Rule((f"{source}.weight",), target, Unfolded(Conv(), kept=2)),
        rule(f"{source}.bias", "position/conv/bias"),
    )


def layer_rules(names: Mapping[str, Any]) -> tuple[Rule, ...]:
    """The rules of the layers, the gate on a relative bias among them."""
    at, (up, down) = "encoder.layers.{i}", names["up, down"]
    attention = f"{at}.{names['attention']}"
    return (
        *_attention(attention),
        *weights(f"{attention}.{names['gate']}", f"{LAYERS}/gate/project", Dense(), SAME),
        rule(f"{attention}.{names['gate constant']}", f"{LAYERS}/gate/constant", Reshape((1, -1, 1, 1))),
        *norm(f"{at}.{names['attention_norm']}", f"{LAYERS}/attention_norm"),
        *weights(f"{at}.{up}", f"{LAYERS}/mlp/up", Dense(), SAME),
        *weights(f"{at}.{down}", f"{LAYERS}/mlp/down", Dense(), SAME),
        *norm(f"{at}.final_layer_norm", f"{LAYERS}/mlp_norm"),
    )


def _attention(source: str) -> tuple[Rule, ...]:
    at = f"{LAYERS}/attention"
    into = (weights(f"{source}.{name[0]}_proj", f"{at}/{name}", Dense(), FLAT) for name in ("query", "key", "value"))
    return (*(one for rules in into for one in rules), *weights(f"{source}.out_proj", f"{at}/out", Dense(2), SAME))
