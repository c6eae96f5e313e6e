"""Moshi's language model (Défossez et al. 2024): `MoshiForConditionalGeneration` of transformers, and Kyutai's own.

A large transformer over all streams and a small one with kernels for each book. Vectors of what the authors call
initial tokens are our empty entries. Attention reaches over a window, as it does in Kyutai's code; transformers says it
in its config and attends to everything before. Mimi, which transformers keeps in the same folder, is a model of its
own (family "mimi"). Kyutai's files ("kyutai") pair neighbouring channels for the rotation, keep query, key and value in
one matrix and, of the small transformer, the kernels of all steps one after the other; what a model of theirs holds in
memory has a name for each step, and is read as well.
"""

from slm_jax.interop.decoder_shapes import projections
from slm_jax.interop.family import Family
from slm_jax.interop.moshi_config import read_config, write_config
from slm_jax.interop.step_transforms import Spread, Steps
from slm_jax.interop.stream_shapes import abstract_params, boxed_params
from slm_jax.interop.table import Rule, Table, below, norm, rule
from slm_jax.interop.transforms import Dense, Each, Fused, Reshape, Rotary
from slm_jax.sequence_models.temporal_depth import TemporalDepthConfig

BODY, LARGE, SMALL = "temporal/body", "temporal/body/blocks/layers", "depth/blocks/layers"
THREE = ("query", "key", "value")


def table(config: TemporalDepthConfig, spelling: str = "transformers") -> Table:
    """The names of one spelling."""
    if spelling == "kyutai":
        return Table(rules=(*_kyutai_large(config), *_kyutai_small(config)))
    return Table(rules=(*_hub_large(config), *_hub_small(config)), ignored=(r"audio_encoder\..*",))


def _hub_large(config: TemporalDepthConfig) -> tuple[Rule, ...]:
    at = "decoder.model.layers.{i}"
    names = ("q_proj.linear", "k_proj.linear", "v_proj.linear", "o_proj.linear")
    return (
        rule("decoder.model.embed_tokens.weight", "temporal/tables_0/embedding"),
        *(rule(f"embed_tokens.{k}.weight", f"temporal/tables_{k + 1}/embedding") for k in _books(config)),
        *below(projections(f"{at}.self_attn", names), "", f"{BODY}/"),
        *norm(f"{at}.input_layernorm", f"{LARGE}/attention_norm", bias=False),
        *norm(f"{at}.post_attention_layernorm", f"{LARGE}/mlp_norm", bias=False),
        Rule((f"{at}.mlp.fc1.weight",), _gated(LARGE, "kernel", "mlp/"), Fused(Dense())),
        rule(f"{at}.mlp.fc2.weight", f"{LARGE}/mlp/down/kernel", Dense()),
        *norm("decoder.model.norm", f"{BODY}/final_norm", bias=False),
        rule("decoder.lm_head.weight", "temporal/head_0", Dense()),
    )


def _hub_small(config: TemporalDepthConfig) -> tuple[Rule, ...]:
    root, at = "depth_decoder", "depth_decoder.layers.{i}"
    maps = {"q_proj": "query", "k_proj": "key", "v_proj": "value"}
    heads = tuple(f"depth/head_{j}" for j in range(config.count - 1))
    return (
        rule(f"{root}.input_projections.weight", "depth/bring/steps", Steps(Dense())),
        rule(f"{root}.text_embed_tokens.weight", "depth/tables_0/embedding"),
        *(rule(f"{root}.embed_tokens.{k}.weight", f"depth/tables_{k + 1}/embedding") for k in range(config.count - 2)),
        *(
            rule(f"{at}.self_attn.{name}.linear.weight", f"{SMALL}/{ours}/steps", Steps(Dense()))
            for name, ours in maps.items()
        ),
        rule(f"{at}.self_attn.o_proj.linear.weight", f"{SMALL}/out/steps", Steps(Dense(inputs=2))),
        *norm(f"{at}.input_layernorm", f"{SMALL}/attention_norm", bias=False),
        *norm(f"{at}.post_attention_layernorm", f"{SMALL}/mlp_norm", bias=False),
        Rule((f"{at}.mlp.fc1.weight",), _gated(SMALL, "steps"), Steps(Fused(Dense()))),
        rule(f"{at}.mlp.fc2.weight", f"{SMALL}/down/steps", Steps(Dense())),
        Rule((f"{root}.lm_heads.weight",), heads, Spread(Dense())),
    )


def _kyutai_large(config: TemporalDepthConfig) -> tuple[Rule, ...]:
    at, qkv = "transformer.layers.{i}", tuple(f"{LARGE}/attention/{name}/kernel" for name in THREE)
    turned = Fused(Each((Rotary(Dense()), Rotary(Dense()), Dense())))
    return (
        rule("text_emb.weight", "temporal/tables_0/embedding"),
        *(rule(f"emb.{k}.weight", f"temporal/tables_{k + 1}/embedding") for k in _books(config)),
        *(Rule((f"{at}.self_attn.{name}",), qkv, turned) for name in ("in_proj_weight", "in_projs.0.weight")),
        *(
            rule(f"{at}.self_attn.{name}.weight", f"{LARGE}/attention/out/kernel", Dense(inputs=2))
            for name in ("out_proj", "out_projs.0")
        ),
        *_alphas(at, LARGE),
        Rule((f"{at}.gating.linear_in.weight",), _gated(LARGE, "kernel", "mlp/"), Fused(Dense())),
        rule(f"{at}.gating.linear_out.weight", f"{LARGE}/mlp/down/kernel", Dense()),
        rule("out_norm.alpha", f"{BODY}/final_norm/scale", Reshape((1, 1, -1))),
        rule("text_linear.weight", "temporal/head_0", Dense()),
    )


def _kyutai_small(config: TemporalDepthConfig) -> tuple[Rule, ...]:
    at, steps = "depformer.layers.{i}", range(config.count - 1)

    def each(name: str) -> tuple[str, ...]:
        return tuple(name.format(j=j, i="{i}") for j in steps)

    qkv = tuple(f"{SMALL}/{name}/steps" for name in THREE)
    return (
        Rule(each("depformer_in.{j}.weight"), ("depth/bring/steps",), Steps(Dense(), "apart")),
        rule("depformer_text_emb.weight", "depth/tables_0/embedding"),
        *(rule(f"depformer_emb.{k}.weight", f"depth/tables_{k + 1}/embedding") for k in range(config.count - 2)),
        Rule((f"{at}.self_attn.in_proj_weight",), qkv, Steps(Fused(Dense()), "joined")),
        Rule(each(f"{at}.self_attn.in_projs.{{j}}.weight"), qkv, Steps(Fused(Dense()), "apart")),
        rule(f"{at}.self_attn.out_proj.weight", f"{SMALL}/out/steps", Steps(Dense(inputs=2), "joined")),
        Rule(each(f"{at}.self_attn.out_projs.{{j}}.weight"), (f"{SMALL}/out/steps",), Steps(Dense(inputs=2), "apart")),
        *_alphas(at, SMALL),
        Rule(each(f"{at}.gating.{{j}}.linear_in.weight"), _gated(SMALL, "steps"), Steps(Fused(Dense()), "apart")),
        Rule(each(f"{at}.gating.{{j}}.linear_out.weight"), (f"{SMALL}/down/steps",), Steps(Dense(), "apart")),
        *(rule(f"linears.{j}.weight", f"depth/head_{j}", Dense()) for j in steps),
    )


def _alphas(source: str, target: str) -> tuple[Rule, ...]:
    alpha, names = Reshape((1, 1, -1)), {"norm1": "attention_norm", "norm2": "mlp_norm"}
    return tuple(rule(f"{source}.{name}.alpha", f"{target}/{ours}/scale", alpha) for name, ours in names.items())


def _gated(at: str, leaf: str, below: str = "") -> tuple[str, ...]:
    return tuple(f"{at}/{below}{name}/{leaf}" for name in ("gate", "up"))


def _books(config: TemporalDepthConfig) -> range:
    return range(len(config.streams) - 1)


MOSHI = Family(
    name="moshi",
    config_type=TemporalDepthConfig,
    spellings=("transformers", "kyutai"),
    matches=lambda hub: hub.get("model_type") == "moshi" or {"n_q", "dep_q", "depformer_dim"} <= hub.keys(),
    read_config=read_config,
    write_config=write_config,
    table=table,
    abstract=abstract_params,
    boxed=boxed_params,
)
