"""Typed options of a verb, and overrides of any field of a config, with one short message for a mistake."""

import contextlib
import dataclasses
import io
import re
import sys
from pathlib import Path
from typing import Any, TypeVar

import tyro

from slm_jax.cli.overrides import HELP, nested_configs, with_indices, with_parts
from slm_jax.core.config import Config, load_config_file
from slm_jax.core.errors import UserError, nearest, require

Options = TypeVar("Options")
C = TypeVar("C", bound=Config)


def parse_options(options_type: type[Options], argv: list[str], prog: str) -> Options:
    """The options dataclass filled from `argv`; raises `UserError` in one line, exits 0 after `--help`."""
    known = [field.name for field in dataclasses.fields(options_type)]  # type: ignore[arg-type]
    for token in argv:
        if token.startswith("--") and token not in HELP and not _names_field(token, known):
            raise UserError(f"unknown option {token.partition('=')[0]}{_nearest_flag(token, known)}")
    return _run_tyro(options_type, argv, prog=f"python -m slm_jax {prog}")


def parse_with_config(options_type: type[Options], argv: list[str], prog: str) -> tuple[Options, Config]:
    """Options and the config they name, with overrides: `train CONFIG [options] [--any.config.field value]`.

    `options_type` has a positional field `config`: the path of a Python config file, or NAME:SIZE of a system. What
    is not an option of the verb overrides a field of the config. `--help` shows the options and, when a config is
    named, its fields.
    """
    own, overrides = split_arguments(options_type, argv)
    if any(flag in argv for flag in HELP):
        _print_help(options_type, own, prog)
        raise SystemExit(0)
    options = parse_options(options_type, own, prog)
    return options, override_config(load_named(options.config), overrides)  # type: ignore[attr-defined]


def load_named(what: str | Path) -> Config:
    """The config of a Python file, or of a system by name, `gslm` or `gslm:published`."""
    from slm_jax.systems.catalogue import is_name, named_config

    return named_config(str(what)) if is_name(str(what)) else load_config_file(what)


def split_arguments(options_type: type, argv: list[str]) -> tuple[list[str], list[str]]:
    """Arguments of the verb itself, and the rest; a value goes where the flag before it goes."""
    known = [field.name for field in dataclasses.fields(options_type)]
    own: list[str] = []
    rest: list[str] = []
    target = own
    for token in argv:
        if token.startswith("-") and not _is_number(token):
            target = own if token in HELP or _names_field(token, known) else rest
        target.append(token)
    return own, rest


def override_config(config: C, argv: list[str], prog: str = "overrides") -> C:
    """`config` with fields changed by flags such as `--optimizer.learning-rate 3e-4`.

    An item of a tuple of configs is named by its index, `--stages.0.steps 5`, or by its `name` field,
    `--stages.lm.steps 5`; a tuple directly in the config may be left out, `--lm.steps 5`. A part that is None begins
    with its defaults when a flag names one of its fields.
    Raises `UserError` for an unknown field, a wrong type, a wrong choice or a value that the config refuses.
    """
    if not argv:
        return config
    config = with_parts(config, argv)
    tokens = with_indices(config, argv)
    for part in nested_configs(config):
        name, module = type(part).__qualname__, type(part).__module__
        require(module in sys.modules, "config class", name, "a class made in the config file cannot be overridden")
    return _run_tyro(type(config), tokens, prog=prog, default=config)


def _names_field(token: str, known: list[str]) -> bool:
    name = token.removeprefix("--").partition("=")[0].replace("-", "_")
    return name in known or name.removeprefix("no_") in known


def _nearest_flag(token: str, known: list[str]) -> str:
    flags = [f"--{name.replace('_', '-')}" for name in known]
    return nearest(token.partition("=")[0].replace("_", "-"), flags)


def _is_number(token: str) -> bool:
    with contextlib.suppress(ValueError):
        float(token)
        return True
    return False


def _print_help(options_type: type, own: list[str], prog: str) -> None:
    with contextlib.suppress(SystemExit):
        parse_options(options_type, ["--help"], prog)
    named = [token for token in own if not token.startswith("-")][:1]
    if named:
        print(f"\nFields of {named[0]}, each of which can be overridden:\n")
        override_config(load_named(named[0]), ["--help"], prog=f"{prog} {named[0]}")


def _run_tyro(target: type[Options], argv: list[str], **kwargs: Any) -> Options:
    """`tyro.cli`, whose framed error messages become a `UserError` of one line."""
    errors = io.StringIO()
    try:
        with contextlib.redirect_stderr(errors):
            return tyro.cli(target, args=argv, config=(tyro.conf.AvoidSubcommands,), **kwargs)
    except SystemExit as stop:
        if stop.code in (0, None):
            raise
        raise UserError(_one_line(errors.getvalue())) from None


def _one_line(box: str) -> str:
    """The first paragraph inside the frame that tyro draws around a message."""
    lines = [line.strip("│| ").strip() for line in box.splitlines()]
    body = [line for line in lines if line and line[0] not in "╭╰"]
    if "╭" not in box and len(body) > 1 and _is_rule(body[1]):  # without Unicode the title has a line of its own
        body = body[2:]
    end = next((i for i, line in enumerate(body) if _is_rule(line)), len(body))
    message = " ".join(body[:end]).removeprefix("Error parsing ").removesuffix(" (required)")
    message = re.sub(r"^Missing from .*?: ", "missing argument: ", message)
    choice = re.search(r"invalid choice '(.*?)' .*Expected one of \((.*)\)", message)
    return message + (nearest(choice[1], re.findall(r"'(.*?)'", choice[2])) if choice else "")


def _is_rule(line: str) -> bool:
    return set(line) <= set("─-")
