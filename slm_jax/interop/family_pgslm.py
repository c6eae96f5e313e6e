"""The language model of pGSLM (Kharitonov et al. 2021): fairseq's `transformer_ulm`, of classes or of real numbers.

A checkpoint of fairseq needs a `config.json` beside it with the names that its arguments have there, `model_type`
`transformer_ulm` and `channel_sizes` (units, durations, F0; 1 for a stream of real numbers). On which grid we read real
numbers is ours to say: `grids`, `[lowest, step, count, scale]` for each such stream.
"""

from typing import Any

from slm_jax.core.errors import require
from slm_jax.interop.family import Family
from slm_jax.interop.family_musicgen import LAYERS
from slm_jax.interop.hub_config import HUB_ACTIVATIONS, Hub, HubConfig, is_type, require_said
from slm_jax.interop.stream_shapes import abstract_params, boxed_params
from slm_jax.interop.table import Rule, Table, norm, rule, weights
from slm_jax.interop.transforms import FLAT, SAME, Dense, Fused
from slm_jax.sequence_models.decoder_config import DecoderConfig
from slm_jax.sequence_models.grid import GridConfig
from slm_jax.sequence_models.multi_stream import MultiStreamConfig
from slm_jax.sequence_models.presets import pgslm_continuous

FIXED = {"decoder_normalize_before": (True,)}
FIXED |= dict.fromkeys(("decoder_learned_pos", "no_token_positional_embeddings"), (False,))
IGNORED = ("ignore_duration_input", "ignore_f0_input")
MAPS = ("q_proj", "k_proj", "v_proj", "out_proj")


def read_config(hub: Hub) -> MultiStreamConfig:
    """Our config of such a `config.json`."""
    fields = HubConfig("transformer_ulm", hub, FIXED)
    width, sizes = fields.number("decoder_embed_dim", 1024), tuple(hub.get("channel_sizes", (104, 25, 36)))
    fields.read |= {"channel_sizes", "grids", "max_target_positions"}  # sinusoids are made for any length
    require(len(sizes) == 3, "channel_sizes", list(sizes), "must be three: units, durations, F0")
    grids = _grids(sizes, hub.get("grids"))
    ignored = tuple(k + 1 for k, name in enumerate(IGNORED) if fields.flag(name, False))
    body = fields.make(
        DecoderConfig,
        vocabulary=1,
        layers=fields.number("decoder_layers", 12),
        width=width,
        heads=fields.number("decoder_attention_heads", 16),
        hidden=fields.number("decoder_ffn_embed_dim", 4096),
        activation=fields.activation("activation_fn", "relu"),
        positions="sinusoidal",
        position_offset=2,
        embed_scale=1.0 if fields.flag("no_scale_embedding", False) else width**0.5,
        dropout=fields.number("dropout", 0.1),
        attention_dropout=fields.number("attention_dropout", 0.1),
        activation_dropout=fields.number("activation_dropout", 0.0),
    )
    return fields.make(
        MultiStreamConfig,
        streams=tuple(size if grid is None else grid.count for size, grid in zip(sizes, grids, strict=True)),
        body=body,
        scaled=1,
        grids=grids if any(grids) else (),
        ignored=ignored,
    )


def _grids(sizes: tuple[int, ...], said: list[Any] | None) -> tuple[GridConfig | None, ...]:
    """Of each stream; those of real numbers have one head."""
    if said is None:
        said = [None if grid is None else _spelt(grid) for grid in pgslm_continuous().grids]
    return tuple(
        None if size != 1 or one is None else GridConfig(lowest=one[0], step=one[1], count=one[2], scale=one[3])
        for size, one in zip(sizes, said, strict=True)
    )


def _spelt(grid: GridConfig) -> list[float | int]:
    return [grid.lowest, grid.step, grid.count, grid.scale]


def write_config(config: MultiStreamConfig) -> dict[str, Any]:
    """The `config.json` of our config."""
    body, grids = config.body, config.grids or (None,) * len(config.streams)
    hub: dict[str, Any] = {
        "model_type": "transformer_ulm",
        "decoder_layers": body.layers,
        "decoder_embed_dim": body.width,
        "decoder_attention_heads": body.heads,
        "decoder_ffn_embed_dim": body.hidden,
        "activation_fn": HUB_ACTIVATIONS[body.activation],
        "no_scale_embedding": body.embed_scale == 1.0,
        "dropout": body.dropout,
        "attention_dropout": body.attention_dropout,
        "activation_dropout": body.activation_dropout,
        "channel_sizes": [n if grid is None else 1 for n, grid in zip(config.streams, grids, strict=True)],
        **{name: k + 1 in config.ignored for k, name in enumerate(IGNORED)},
    }
    if any(grids):
        hub["grids"] = [None if grid is None else _spelt(grid) for grid in grids]
    free = (r"body\.(unroll|remat|dtype|vocabulary|max_positions|init_scale)",)
    require_said("transformer_ulm", config, read_config(hub), free)
    return hub


def table(config: MultiStreamConfig, spelling: str = "fairseq") -> Table:
    """The names of fairseq."""
    at, streams = "decoder.layers.{i}", range(len(config.streams))
    heads = Rule(("decoder.project_out_dim.weight",), tuple(f"head_{k}" for k in streams), Fused(Dense()))
    into = (*((Dense(), FLAT),) * 3, (Dense(inputs=2), FLAT))
    maps = zip(MAPS, ("query", "key", "value", "out"), into, strict=True)
    return Table(
        rules=(
            rule("decoder.embed_tokens.weight", "tables_0/embedding"),
            *(each for k in streams[1:] for each in _reader(config, k)),
            *(
                each
                for theirs, ours, how in maps
                for each in weights(f"{at}.self_attn.{theirs}", f"{LAYERS}/attention/{ours}", *how)
            ),
            *norm(f"{at}.self_attn_layer_norm", f"{LAYERS}/attention_norm"),
            *weights(f"{at}.fc1", f"{LAYERS}/mlp/up", Dense(), SAME),
            *weights(f"{at}.fc2", f"{LAYERS}/mlp/down", Dense(), SAME),
            *norm(f"{at}.final_layer_norm", f"{LAYERS}/mlp_norm"),
            *norm("decoder.layer_norm", "body/final_norm"),
            heads,
        ),
        # a head over units that nobody asks, and what says which version wrote the file
        ignored=(r"decoder\.(output_projection\.weight|version|embed_positions\._float_tensor)",),
    )


def _reader(config: MultiStreamConfig, stream: int) -> tuple[Rule, ...]:
    """What makes vectors of a stream beside the units."""
    if config.grid(stream) is None:
        return (rule(f"decoder.embed_other_list.{stream - 1}.weight", f"tables_{stream}/embedding"),)
    return weights(f"decoder.proj_other_list.{stream - 1}", f"tables_{stream}", Dense(), SAME)


PGSLM = Family(
    name="transformer_ulm",
    config_type=MultiStreamConfig,
    spellings=("fairseq",),
    matches=is_type("transformer_ulm"),
    read_config=read_config,
    write_config=write_config,
    table=table,
    abstract=abstract_params,
    boxed=boxed_params,
)
