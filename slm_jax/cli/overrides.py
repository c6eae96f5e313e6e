"""Flags that name a field anywhere inside a config: `--optimizer.learning-rate`, `--stages.lm.steps`, `--lm.steps`."""

import contextlib
import dataclasses
from collections.abc import Iterator
from typing import Any, TypeVar, get_args, get_type_hints

from slm_jax.core.config import Config
from slm_jax.core.errors import UserError, nearest

C = TypeVar("C", bound=Config)
HELP = ("-h", "--help")
SWITCHES = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}


def with_indices(config: Config, argv: list[str]) -> list[str]:
    """Flags with real indices; a switch may be given with a word, `--ema true`."""
    tokens: list[str] = []
    switch_at: int | None = None
    for token in argv:
        if token in HELP:
            tokens.append(token)
        elif token.startswith("--"):
            name, equals, given = token[2:].partition("=")
            path, value = _resolve_switch(config, name)
            switch_at = len(tokens) if isinstance(value, bool) else None
            tokens.append(f"--{path}")
            if equals:
                _append_value(tokens, given, switch_at)
        elif not tokens:
            raise UserError(f"unexpected argument {token!r}: overrides look like --field value")
        else:
            _append_value(tokens, token, switch_at)
    return tokens


def with_parts(config: C, argv: list[str]) -> C:
    """`config` with its default in place of each None that a flag looks into, `--train.spike.sigmas 6`."""
    for token in argv:
        if token.startswith("--") and token not in HELP:
            parts = token[2:].partition("=")[0].replace("-", "_").split(".")
            config = _filled(config, [*_tuple_holding(config, parts[0]), *parts])
    return config


def nested_configs(config: Config) -> Iterator[Config]:
    """`config` and every config inside it."""
    yield config
    for field in dataclasses.fields(config):
        for _, item in _children(getattr(config, field.name)):
            yield from nested_configs(item)


def resolve_path(config: Config, dotted: str) -> tuple[str, Any]:
    """The path with indices for names, and the value there; raises `UserError` with the nearest right path."""
    parts = dotted.replace("-", "_").split(".")
    if not _leads_on(config, parts):
        parts = [*_tuple_holding(config, parts[0]), *parts]
    value: Any = config
    done: list[str] = []
    for part in parts:
        step = _step(value, part)
        if step is None:
            raise UserError(f"unknown field --{dotted}{_nearest_path(config, dotted)}")
        done.append(step[0])
        value = step[1]
    if isinstance(value, Config):
        inside = ", ".join(field.name for field in dataclasses.fields(value))
        raise UserError(f"--{dotted} is a config, not a single value: name one of its fields ({inside})")
    return ".".join(done), value


def field_paths(config: Config, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every field that a flag can name, as (dotted path, value); items with a `name` are named by it."""
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        for label, item in _children(value):
            yield from field_paths(item, f"{prefix}{field.name}.{label}")
        if not _children(value):
            yield f"{prefix}{field.name}", value


def _filled(value: Any, parts: list[str]) -> Any:
    """`value`, a config or a tuple, with what `parts` leads through there."""
    step = _step(value, parts[0]) if len(parts) > 1 else None
    if step is None:
        return value
    name, inner = step
    made = _filled(_default(type(value), name) if inner is None else inner, parts[1:])
    if made is inner:
        return value
    if isinstance(value, tuple):
        return tuple(made if str(index) == name else item for index, item in enumerate(value))
    return value.replace(**{name: made})


def _default(owner: type, name: str) -> Config | None:
    """What a field that is None would hold by default: of the one config class that it may hold, if that has one."""
    kinds = [kind for kind in get_args(get_type_hints(owner)[name]) if isinstance(kind, type)]
    configs = [kind for kind in kinds if issubclass(kind, Config)]
    with contextlib.suppress(TypeError):
        return configs[0]() if len(configs) == 1 else None
    return None


def _append_value(tokens: list[str], given: str, switch_at: int | None) -> None:
    """Add a value, or turn the switch at `switch_at` into its negative form."""
    if switch_at is None:
        tokens.append(given)
    elif given.lower() not in SWITCHES:
        raise UserError(f"{tokens[switch_at]} is a switch: {given!r} must be true or false")
    elif not SWITCHES[given.lower()]:
        head, dot, last = tokens[switch_at].removeprefix("--").rpartition(".")
        tokens[switch_at] = f"--{head}{dot}no-{last}"


def _resolve_switch(config: Config, name: str) -> tuple[str, Any]:
    """Like `resolve_path`; also takes the negative form of a switch, `--training.no-ema`."""
    head, dot, last = name.rpartition(".")
    if last.startswith(("no-", "no_")):
        with contextlib.suppress(UserError):
            path, value = resolve_path(config, f"{head}{dot}{last[3:]}")
            if isinstance(value, bool):
                head, dot, last = path.rpartition(".")
                return f"{head}{dot}no-{last}", None
    return resolve_path(config, name)


def _leads_on(config: Config, parts: list[str]) -> bool:
    """Is the first part a field that the others can look into? A run may name a stage in a field called like it."""
    known = {field.name for field in dataclasses.fields(config)}
    single = len(parts) > 1 and isinstance(getattr(config, parts[0], None), str | float | int)
    return parts[0] in known and not single


def _step(value: Any, part: str) -> tuple[str, Any] | None:
    """One step down a config or a tuple of configs: (index or field name, value)."""
    if isinstance(value, Config):
        known = {field.name for field in dataclasses.fields(value)}
        return (part, getattr(value, part)) if part in known else None
    if isinstance(value, tuple):
        for index, item in enumerate(value):
            if isinstance(item, Config) and part in (str(index), _label(item)):
                return str(index), item
    return None


def _tuple_holding(config: Config, label: str) -> list[str]:
    """The field of `config` whose tuple has an item called `label`, as a path of no or one part."""
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if isinstance(value, tuple) and any(_label(item) == label for item in value if isinstance(item, Config)):
            return [field.name]
    return []


def _children(value: Any) -> list[tuple[str, Config]]:
    """Configs inside a field, each with what stands before its own fields in a path."""
    if isinstance(value, Config):
        return [("", value)]
    if isinstance(value, tuple):
        return [(f"{_label(item) or i}.", item) for i, item in enumerate(value) if isinstance(item, Config)]
    return []


def _label(item: Config) -> str | None:
    name = getattr(item, "name", None)
    return name.replace("-", "_") if isinstance(name, str) and name else None


def _nearest_path(config: Config, dotted: str) -> str:
    """The nearest path: one that ends in the same field when there is one, by spelling otherwise."""
    flags = [f"--{path.replace('_', '-')}" for path, _ in field_paths(config)]
    wanted = dotted.replace("_", "-")
    same_end = [flag for flag in flags if flag.rpartition(".")[2].removeprefix("--") == wanted.rpartition(".")[2]]
    return nearest(f"--{wanted}", same_end) or nearest(f"--{wanted}", flags) or _first(same_end)


def _first(flags: list[str]) -> str:
    return f" (did you mean {flags[0]!r}?)" if flags else ""
