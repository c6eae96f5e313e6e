"""The linear quantizer of SpiRit-LM's units at 25 Hz: its config and the names of its weights.

A checkpoint is one file of `torch.save` with `model_weight` and `model_cfg`, which has `vocab_size`, `dim` and
`upstream_dim`. Ours is read beside a `config.json` with these three.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax.core import meta

from slm_jax.core.errors import UserError
from slm_jax.core.types import Frames
from slm_jax.interop.family import Family
from slm_jax.interop.hub_config import Hub, HubConfig, require_said
from slm_jax.interop.table import Table, weights
from slm_jax.interop.transforms import SAME, Dense
from slm_jax.quantizers.linear import LinearQuantizerConfig, narrowing

FIELDS = {"vocab_size", "dim", "upstream_dim"}


def read_config(hub: Hub) -> LinearQuantizerConfig:
    """Our config of the three numbers."""
    fields = HubConfig("linear_quantizer", hub)
    width, units = fields.number("dim", 768), fields.number("vocab_size", 500)
    hidden = narrowing(width, units, fields.number("upstream_dim", width))
    fields.unless(min(hidden) >= 1, "upstream_dim", fields.get("upstream_dim"), "leaves no hidden channels")
    return fields.make(LinearQuantizerConfig, width=width, hidden=hidden, units=units)


def write_config(config: LinearQuantizerConfig) -> dict[str, Any]:
    """The three numbers; raises `UserError` for hidden channels that they can't say."""
    rule = "linear_quantizer: hidden must narrow as in the published form"
    if len(config.hidden) != 2:
        raise UserError(f"{rule}, in two maps")
    least = config.units + 1 + 2 * (config.width - config.hidden[1])
    for upstream in (least, least + 1):
        if narrowing(config.width, config.units, upstream) == config.hidden:
            hub = {"vocab_size": config.units, "dim": config.width, "upstream_dim": upstream}
            require_said("linear_quantizer", config, read_config(hub))
            return hub
    raise UserError(f"{rule}, {config.hidden} do not")


def table(config: LinearQuantizerConfig, spelling: str = "original") -> Table:
    """The names of the released checkpoint, a bare sequence in which rectifiers are counted."""
    names = [*(f"hidden_{place}" for place in range(len(config.hidden))), "out"]
    rules = [weights(str(2 * place), name, Dense(), SAME) for place, name in enumerate(names)]
    return Table(rules=tuple(rule for pair in rules for rule in pair), renames=((r"^encoder\.", ""),))


def boxed_params(config: LinearQuantizerConfig) -> Any:
    """Shapes and dtypes of the parameters with their logical axes; nothing is computed."""
    frames = Frames(jnp.zeros((1, 1, config.width)), jnp.ones((1, 1), bool))
    return jax.eval_shape(config.make().init, jax.random.key(0), frames)["params"]


def abstract_params(config: LinearQuantizerConfig) -> Any:
    """Shapes and dtypes of the parameters."""
    return meta.unbox(boxed_params(config))


LINEAR_QUANTIZER = Family(
    name="linear_quantizer",
    config_type=LinearQuantizerConfig,
    spellings=("original",),
    matches=lambda hub: "model_type" not in hub and hub.keys() >= FIELDS,
    read_config=read_config,
    write_config=write_config,
    table=table,
    abstract=abstract_params,
    boxed=boxed_params,
)
