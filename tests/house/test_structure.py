"""The structure between files: no two import each other, and a package's first page names what is in it."""

import ast
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "slm_jax"
PACKAGES = sorted(path.parent.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob("__init__.py"))[1:]
NAMED = re.compile(r"`([a-z_0-9.]+)`")


@cache
def imports() -> dict[str, frozenset[str]]:
    """Module -> modules of ours that it imports, inside functions and for type checkers too."""
    files = {module_name(path): path for path in PACKAGE.rglob("*.py")}
    return {name: frozenset(imported(ast.parse(path.read_text()), name, set(files))) for name, path in files.items()}


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def imported(tree: ast.Module, name: str, known: set[str]) -> set[str]:
    """Modules that a tree imports, itself left out."""
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module:
            found |= {f"{node.module}.{alias.name}" for alias in node.names} | {node.module}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return (found & known) - {name}


def circle_through(start: str, graph: dict[str, frozenset[str]]) -> list[str] | None:
    """A way from `start` back to itself."""
    came_from: dict[str, str] = {}
    waiting = [start]
    while waiting:
        here = waiting.pop()
        for there in graph.get(here, ()):
            if there == start:
                way = [here]
                while way[0] != start:
                    way.insert(0, came_from[way[0]])
                return [*way, start]
            if there not in came_from:
                came_from[there] = here
                waiting.append(there)
    return None


def test_no_file_imports_itself_through_others():
    graph = {name: targets for name, targets in imports().items() if name != "slm_jax"}
    circles = {tuple(sorted(set(way))) for name in graph if (way := circle_through(name, graph))}
    assert not circles


def test_a_circle_is_found():
    graph = {"a": frozenset({"b"}), "b": frozenset({"c"}), "c": frozenset({"b"})}
    assert circle_through("b", graph) == ["b", "c", "b"]
    assert circle_through("a", graph) is None


@pytest.mark.parametrize("package", PACKAGES)
def test_a_table_of_contents_is_true(package):
    folder = PACKAGE / package
    text = ast.get_docstring(ast.parse((folder / "__init__.py").read_text())) or ""
    dotted = package.replace("/", ".")
    there = {path.stem for path in folder.glob("*.py")} | {path.parent.name for path in folder.glob("*/__init__.py")}
    there -= {"__init__", "main"} if package == "cli" else {"__init__"}  # `main` is no verb
    named = {name for name in NAMED.findall(text) if name.startswith(f"{dotted}.")}
    named = {name.removeprefix(f"{dotted}.").split(".")[0] for name in named}
    assert named == there, f"missing {sorted(there - named)}, gone {sorted(named - there)}"
