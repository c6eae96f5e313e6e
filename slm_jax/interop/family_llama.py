"""LLaMA (Touvron et al. 2023), Qwen2 (Yang et al. 2024), Mistral (Jiang et al. 2023): biases, windows, defaults.

Spelling "transformers" is that of `LlamaForCausalLM` and its kin; "original" that of Meta's own code and its small
relatives, whose query and key rows pair neighbouring channels for the rotation.
"""

from collections.abc import Mapping
from itertools import chain
from typing import Any

from slm_jax.interop.decoder_shapes import BLOCKS, abstract_params, boxed_params, plain, projections
from slm_jax.interop.family import Family
from slm_jax.interop.hub_config import HUB_ACTIVATIONS, Hub, HubConfig, is_type, require_said
from slm_jax.interop.table import Table, norm, rule, weights
from slm_jax.interop.transforms import SAME, Dense
from slm_jax.nn.positions import RopeScaling
from slm_jax.sequence_models.decoder_config import DecoderConfig

LLAMA_DEFAULTS = {"vocab_size": 32000, "intermediate_size": 11008, "max_position_embeddings": 2048}
QWEN2_DEFAULTS = {"vocab_size": 151936, "intermediate_size": 22016, "max_position_embeddings": 32768}
MISTRAL_DEFAULTS = {"vocab_size": 32000, "intermediate_size": 14336, "max_position_embeddings": 131072}
MISTRAL_DEFAULTS |= {"num_key_value_heads": 8, "sliding_window": 4096}
"""What transformers takes where a field is absent."""
FIXED: dict[str, tuple] = {
    "partial_rotary_factor": (1.0,),
    "rope_interleaved": (False,),
    "use_mrope": (False,),
    "is_llama_config": (True,),
    "sliding_window": (),
}
ROPE_KEYS: dict[str, set[str]] = {
    "default": set(),
    "linear": {"factor"},
    "llama3": {"factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings"},
}
ROPE_NAMES = {"factor": "factor", "low_freq_factor": "low", "high_freq_factor": "high"}
PARTS = {
    "transformers": {
        "tokens": "model.embed_tokens",
        "layer": "model.layers.{i}",
        "attention": ("self_attn", ("q_proj", "k_proj", "v_proj", "o_proj")),
        "mlp": {"gate": "mlp.gate_proj", "up": "mlp.up_proj", "down": "mlp.down_proj"},
        "norms": ("input_layernorm", "post_attention_layernorm"),
        "final_norm": "model.norm",
        "head": "lm_head",
        "renames": ((r"^lm\.", ""), (r"^(embed_tokens|layers|norm)\.", r"model.\1.")),
        # rotary frequencies, which old files keep in every layer
        "ignored": (r"model\.layers\.\d+\.self_attn\.rotary_emb\.inv_freq", r"model\.rotary_emb\.inv_freq"),
    },
    "original": {
        "tokens": "tok_embeddings",
        "layer": "layers.{i}",
        "attention": ("attention", ("wq", "wk", "wv", "wo")),
        "mlp": {"gate": "feed_forward.w1", "up": "feed_forward.w3", "down": "feed_forward.w2"},
        "norms": ("attention_norm", "ffn_norm"),
        "final_norm": "norm",
        "head": "output",
        "renames": ((r"^_orig_mod\.", ""),),
        # rotary tables, computed from the config
        "ignored": (r"rope\.freqs", r"freqs_(cos|sin|cis)"),
    },
}


def read_llama(hub: Hub) -> DecoderConfig:
    """Our config of a `config.json`, or of the `params.json` beside Meta's own weights."""
    if "dim" in hub:
        return _read_params_json(hub)
    fields = HubConfig("llama", hub, FIXED)
    bias, mlp_bias = fields.flag("attention_bias", False), fields.flag("mlp_bias", False)
    return _read(fields, LLAMA_DEFAULTS, qkv_bias=bias, out_bias=bias, mlp_bias=mlp_bias, window=None)


def read_qwen2(hub: Hub) -> DecoderConfig:
    """Our config of a `config.json`; a sliding window must hold for all layers or for none."""
    fields = HubConfig("qwen2", hub, FIXED)
    return _read(fields, QWEN2_DEFAULTS, qkv_bias=True, out_bias=False, mlp_bias=False, window=_window(fields))


def read_mistral(hub: Hub) -> DecoderConfig:
    """Our config of a `config.json`; the window holds for all layers, and null is none."""
    fields = HubConfig("mistral", hub, FIXED)
    width = fields.number("sliding_window", MISTRAL_DEFAULTS["sliding_window"])
    window = None if hub.get("sliding_window", width) is None else width
    return _read(fields, MISTRAL_DEFAULTS, qkv_bias=False, out_bias=False, mlp_bias=False, window=window)


def write_llama(config: DecoderConfig) -> dict:
    """The `config.json` of our config."""
    hub = {"model_type": "llama", "architectures": ["LlamaForCausalLM"], **_write(config)}
    hub |= {"attention_bias": config.qkv_bias, "mlp_bias": config.mlp_bias}
    require_said("llama", plain(config), plain(read_llama(hub)), _unsaid(config))
    return hub


def write_qwen2(config: DecoderConfig) -> dict:
    """The `config.json` of our config."""
    hub = {"model_type": "qwen2", "architectures": ["Qwen2ForCausalLM"], **_write(config)}
    if config.window is not None:
        hub |= {"use_sliding_window": True, "sliding_window": config.window, "max_window_layers": 0}
    require_said("qwen2", plain(config), plain(read_qwen2(hub)), _unsaid(config))
    return hub


def write_mistral(config: DecoderConfig) -> dict:
    """The `config.json` of our config."""
    hub = {"model_type": "mistral", "architectures": ["MistralForCausalLM"], **_write(config)}
    hub |= {"sliding_window": config.window}
    require_said("mistral", plain(config), plain(read_mistral(hub)), _unsaid(config))
    return hub


def table(config: DecoderConfig, spelling: str = "transformers") -> Table:
    """The names of one spelling."""
    names: dict[str, Any] = PARTS[spelling]
    at, (attention, four) = names["layer"], names["attention"]
    mlp = (weights(f"{at}.{name}", f"{BLOCKS}/mlp/{ours}", Dense(), SAME) for ours, name in names["mlp"].items())
    head = () if config.tied_head else (rule(f"{names['head']}.weight", "head_kernel", Dense()),)
    return Table(
        rules=(
            rule(f"{names['tokens']}.weight", "tokens/embedding"),
            *norm(f"{at}.{names['norms'][0]}", f"{BLOCKS}/attention_norm", bias=False),
            *projections(f"{at}.{attention}", four, pairs=spelling == "original"),
            *norm(f"{at}.{names['norms'][1]}", f"{BLOCKS}/mlp_norm", bias=False),
            *chain.from_iterable(mlp),
            *norm(names["final_norm"], "final_norm", bias=False),
            *head,
        ),
        ignored=names["ignored"],
        tied={f"{names['head']}.weight": f"{names['tokens']}.weight"} if config.tied_head else {},
        renames=names["renames"],
    )


def _read(fields: HubConfig, defaults: Mapping[str, int], **ours: Any) -> DecoderConfig:
    """What the families have in common."""
    width, heads = fields.number("hidden_size", 4096), fields.number("num_attention_heads", 32)
    unsaid = heads if "num_key_value_heads" in fields.fields else defaults.get("num_key_value_heads", heads)
    groups = fields.number("num_key_value_heads", unsaid)
    channels = fields.number("head_dim", width // heads)
    base, scaling = _rope(fields)
    return fields.make(
        DecoderConfig,
        vocabulary=fields.number("vocab_size", defaults["vocab_size"]),
        layers=fields.number("num_hidden_layers", 32),
        width=width,
        heads=heads,
        kv_heads=groups,
        head_width=None if channels * heads == width else channels,
        hidden=fields.number("intermediate_size", defaults["intermediate_size"]),
        norm="rms",
        norm_epsilon=fields.number("rms_norm_eps", 1e-6),
        activation=fields.activation("hidden_act", "silu"),
        gated=True,
        positions="rope",
        max_positions=fields.number("max_position_embeddings", defaults["max_position_embeddings"]),
        rope_base=base,
        rope_scaling=scaling,
        tied_head=fields.flag("tie_word_embeddings", False),
        attention_dropout=fields.number("attention_dropout", 0.0),
        init_scale=fields.number("initializer_range", 0.02),
        **ours,
    )


def _rope(fields: HubConfig) -> tuple[float, RopeScaling | None]:
    """Base and scaling, from `rope_parameters` (transformers 5) or `rope_theta` and `rope_scaling` (before)."""
    given = {**fields.get("rope_scaling", {}), **fields.get("rope_parameters", {})}
    given = {name: value for name, value in given.items() if value is not None}
    kind = given.pop("type", "default")
    kind = given.pop("rope_type", kind)
    base = given.pop("rope_theta", fields.number("rope_theta", 10_000.0))
    fields.unless(kind in ROPE_KEYS, "rope_type", kind, f"must be one of {', '.join(ROPE_KEYS)}")
    numbers = all(isinstance(value, int | float) for value in (base, *given.values()))
    fields.unless(numbers, "rope_parameters", given, "must hold numbers")
    if kind in ROPE_KEYS:
        names = sorted(given)
        rule = f"{kind} scaling has exactly {', '.join(sorted(ROPE_KEYS[kind])) or 'nothing of this'}"
        fields.unless(names == sorted(ROPE_KEYS[kind]), "rope_parameters", names, rule)
    if kind == "default" or fields.faults:
        return float(base) if numbers else 1.0, None
    ours: dict[str, Any] = {ours: float(given[name]) for name, ours in ROPE_NAMES.items() if name in given}
    if kind == "llama3":
        ours["original_length"] = int(given["original_max_position_embeddings"])
    return float(base), RopeScaling(kind=kind, **ours)


def _window(fields: HubConfig) -> int | None:
    """Qwen2's window: only `layer_types` and these three fields decide, and only all or no layers may have it."""
    used = fields.flag("use_sliding_window", False)
    width, first = fields.number("sliding_window", 4096), fields.number("max_window_layers", 28)
    layers = fields.number("num_hidden_layers", 32)
    kinds = fields.get("layer_types", [])
    if not kinds:
        kinds = ["sliding_attention" if used and layer >= first else "full_attention" for layer in range(layers)]
    fields.unless(len(set(kinds)) == 1, "layer_types", kinds, "all layers must be of one type")
    sliding = kinds[0] == "sliding_attention"
    fields.unless(sliding or kinds[0] == "full_attention", "layer_types", kinds, "must be full or sliding attention")
    fields.unless(used or not sliding, "use_sliding_window", used, "must be true for sliding layer_types")
    return width if sliding else None


def _write(config: DecoderConfig) -> dict:
    """The common fields; the rotation as transformers 4 wrote it, which version 5 reads too."""
    rope = config.rope_scaling
    scaling: dict[str, Any] | None = None if rope is None else {"rope_type": rope.kind, "factor": rope.factor}
    if rope is not None and rope.kind == "llama3":
        scaling |= {"low_freq_factor": rope.low, "high_freq_factor": rope.high}  # type: ignore[operator]
        scaling |= {"original_max_position_embeddings": rope.original_length}
    return {
        "vocab_size": config.vocabulary,
        "hidden_size": config.width,
        "intermediate_size": config.hidden,
        "num_hidden_layers": config.layers,
        "num_attention_heads": config.heads,
        "num_key_value_heads": config.groups,
        "head_dim": config.channels,
        "hidden_act": HUB_ACTIVATIONS[config.activation],
        **({} if config.max_positions is None else {"max_position_embeddings": config.max_positions}),
        "rms_norm_eps": config.norm_epsilon,
        "rope_theta": config.rope_base,
        "rope_scaling": scaling,
        "tie_word_embeddings": config.tied_head,
        "attention_dropout": config.attention_dropout,
        "initializer_range": config.init_scale,
    }


def _unsaid(config: DecoderConfig) -> tuple[str, ...]:
    """What may get lost: that ours has no bound on positions (theirs always do), and rates that only training has."""
    return ("dropout", "activation_dropout", *(["max_positions"] if config.max_positions is None else []))


def _read_params_json(hub: Hub) -> DecoderConfig:
    """Meta's `params.json`, also as the `model_args` of llama2.c; whether the head is tied is our own addition."""
    fields = HubConfig("llama (params.json)", hub, {"use_scaled_rope": (False,)})
    width, heads = fields.number("dim", 4096), fields.number("n_heads", 32)
    groups, multiple = fields.number("n_kv_heads", heads), fields.number("multiple_of", 256)
    hidden = int(fields.number("ffn_dim_multiplier", 1.0) * int(8 * width / 3))
    hidden = fields.number("hidden_dim", multiple * -(-hidden // multiple))
    vocabulary = fields.number("vocab_size", -1)
    fields.unless(vocabulary > 0, "vocab_size", vocabulary, "must be the number of rows of the token table")
    dropout = fields.number("dropout", 0.0)
    return fields.make(
        DecoderConfig,
        vocabulary=vocabulary,
        layers=fields.number("n_layers", 32),
        width=width,
        heads=heads,
        kv_heads=groups,
        hidden=hidden,
        norm="rms",
        norm_epsilon=fields.number("norm_eps", 1e-5),
        activation="silu",
        gated=True,
        qkv_bias=False,
        out_bias=False,
        mlp_bias=False,
        positions="rope",
        max_positions=fields.number("max_seq_len", 2048),
        rope_base=fields.number("rope_theta", 10_000.0),
        tied_head=fields.flag("tie_word_embeddings", False),
        dropout=dropout,
        attention_dropout=dropout,
    )


LLAMA = Family(
    name="llama",
    config_type=DecoderConfig,
    spellings=("transformers", "original"),
    matches=lambda hub: hub.get("model_type") == "llama" or {"dim", "n_layers", "n_heads"} <= hub.keys(),
    read_config=read_llama,
    write_config=write_llama,
    table=table,
    abstract=abstract_params,
    boxed=boxed_params,
)
QWEN2 = Family(
    name="qwen2",
    config_type=DecoderConfig,
    spellings=("transformers",),
    matches=is_type("qwen2"),
    read_config=read_qwen2,
    write_config=write_qwen2,
    table=table,
    abstract=abstract_params,
    boxed=boxed_params,
)
MISTRAL = Family(
    name="mistral",
    config_type=DecoderConfig,
    spellings=("transformers",),
    matches=is_type("mistral"),
    read_config=read_mistral,
    write_config=write_mistral,
    table=table,
    abstract=abstract_params,
    boxed=boxed_params,
)
