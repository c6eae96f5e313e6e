"""Finds the verb and runs it; `--help` imports neither a verb nor JAX."""

import ast
import importlib
import importlib.util
import os
import sys
from pathlib import Path
from typing import NoReturn

import slm_jax
from slm_jax.cli.compiling import compile_quickly
from slm_jax.cli.console import run_verb, say
from slm_jax.cli.memory import keep_memory
from slm_jax.core.errors import nearest

ORDER = (
    "demo",
    "prepare",
    "tokenize",
    "speak",
    "systems",
    "train",
    "plan",
    "generate",
    "evaluate",
    "benchmark",
    "serve",
    "transcribe",
    "codec",
    "align",
    "convert",
    "parity",
    "bench",
    "doctor",
)
LONG = ("demo", "train", "evaluate", "bench", "serve")
"""Verbs that call the same programs many times."""
SHORT = ("demo", "evaluate", "generate", "transcribe", "codec")
"""Verbs whose programs run for a minute or two at most, so that compiling them counts."""
PROGRAM = "python -m slm_jax"


def run() -> NoReturn:
    """Entry point of the process."""
    code = main(sys.argv[1:])
    if "slm_jax.parallel.watch" in sys.modules:  # one of several hosts
        sys.modules["slm_jax.parallel.watch"].leave_if_failed(code)
    sys.exit(code)


def main(argv: list[str]) -> int:
    """Run `argv` (verb and its arguments); returns the exit code: 0 well, 1 failed, 2 a mistake in the command."""
    known = verbs()
    if not argv or argv[0] in ("-h", "--help", "help"):
        print(usage(known))
        return 0
    if argv[0] in ("-V", "--version"):
        print(f"slm_jax {slm_jax.__version__}")
        return 0
    name, rest = argv[0], argv[1:]
    if name not in known:
        say(f"error: unknown verb {name!r}{nearest(name, known)}; one of {', '.join(known)}")
        return 2
    keep_compiled_programs()
    keep_libtpu_quiet()
    if name in LONG:
        keep_memory()
    if name in SHORT:
        compile_quickly()
    return run_verb(lambda args: importlib.import_module(f"slm_jax.cli.{name}").main(args), rest)


def verbs(folder: Path | None = None) -> dict[str, str]:
    """Verb -> help line, in the order in which a newcomer needs them."""
    found = {}
    for path in sorted((folder or Path(__file__).parent).glob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        functions = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
        if "main" in functions and path.stem != "main":
            found[path.stem] = (ast.get_docstring(tree) or "").split("\n")[0]
    ranks = {name: rank for rank, name in enumerate(ORDER)}
    return {name: found[name] for name in sorted(found, key=lambda name: (ranks.get(name, len(ranks)), name))}


def usage(known: dict[str, str]) -> str:
    """The text of `--help`."""
    width = max(map(len, known)) + 2
    lines = "\n".join(f"  {name:<{width}}{line}" for name, line in known.items())
    return (
        f"usage: {PROGRAM} VERB [options]\n\n{slm_jax.__doc__}\n\n{lines}\n\n"
        f"{PROGRAM} VERB --help shows the options of a verb. With --json the result is one JSON value on stdout."
    )


def keep_compiled_programs() -> None:
    """Let JAX keep what it compiles between runs, unless the environment says where or says no."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(cache / "slm_jax" / "compiled"))


def keep_libtpu_quiet() -> None:
    """An installed libtpu (for `plan`) must not print errors on machines without a TPU."""
    if importlib.util.find_spec("libtpu") is not None:
        importlib.import_module("slm_jax.parallel.topologies").quiet_libtpu()
