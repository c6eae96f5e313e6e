"""What is known of one family of published models."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

from slm_jax.core.config import Config
from slm_jax.interop.table import Table


@dataclass(frozen=True)
class Family:
    """One family: its configs both ways, its tables, the abstract shapes of its parameters.

    `spellings`: the names its weights go by, the default of export first. `matches`: is this `config.json` one of
    the family's? `read_config` raises `UserError` naming every field that we can't honour; `write_config` raises it
    for a config of ours that the family can't say. `config_type`: what `read_config` returns.
    `boxed`: as `abstract`, with the logical axes around each weight.
    `side_files`: other JSON files of a folder that say something of the config, without `.json`; what they hold
    stands in the config under their name (`{"preprocessor_config": {...}}`), on reading and on writing.
    `told_by_names`: the config with what the names of the weights tell and `config.json` leaves open.
    """

    name: str
    config_type: type[Config]
    spellings: tuple[str, ...]
    matches: Callable[[Mapping[str, Any]], bool]
    read_config: Callable[[Mapping[str, Any]], Any]
    write_config: Callable[[Any], dict[str, Any]]
    table: Callable[[Any, str], Table]
    abstract: Callable[[Any], Any]
    boxed: Callable[[Any], Any]
    side_files: tuple[str, ...] = ()
    told_by_names: Callable[[Any, Collection[str]], Any] = lambda config, names: config
