"""The rules of the house, read off the syntax tree: nothing is imported or run.

A rule takes a source file and yields one line per violation.
"""

import ast
import dataclasses
import re
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path

FLOORS = (
    ("core",),
    ("audio", "text", "parallel"),
    ("nn", "token_compression", "schemes", "layouts", "checkpoints"),
    ("encoders", "quantizers", "adapters", "sequence_models", "decoders"),
    ("assemblies",),
    ("interop", "data", "objectives", "generation"),
    ("evaluation",),
    ("training", "serving"),
    ("judges",),
    ("systems",),
    ("workbench", "pipelines"),
    ("cli",),
)
FLOOR = {package: floor for floor, packages in enumerate(FLOORS) for package in packages}
WITHOUT_FLAX = ("core", "audio", "text", "token_compression", "schemes", "layouts")
IMPORT_FENCES = {
    "orbax": ("checkpoints",),
    "grain": ("data",),
    "tensorflow_datasets": ("data",),
    "torch": ("interop",),
    "torchaudio": (),
    "transformers": ("interop",),
    "apache_beam": ("pipelines",),
}
"""Foreign package -> packages of ours that may import it."""
LIFTED = {"scan", "remat", "remat_scan", "checkpoint", "map_variables", "intercept_methods"}
"""What of `flax.linen` only `nn/` may use."""
MESH_BUILDERS = {"Mesh", "make_mesh", "create_device_mesh", "create_hybrid_device_mesh"}
FORBIDDEN_NAMES = re.compile(r"(utils?|helpers?|misc|common)$|_v\d+$|_old$|_new$")
UNFINISHED = re.compile(r"#.*\b(TO[D]O|FIXM[E]|XX[X]|HAC[K])\b")
TEST_FOLDERS = {"contracts", "parity", "multidevice", "house", "faults", "end_to_end", "golden", "reference", *FLOOR}
FILE_LINES = 400
FUNCTION_LINES = 80


@dataclasses.dataclass(frozen=True)
class Source:
    """A file by its path from the root of the repository."""

    path: str
    text: str

    @cached_property
    def tree(self) -> ast.Module:
        return ast.parse(self.text, self.path)

    @property
    def parts(self) -> tuple[str, ...]:
        return Path(self.path).parts

    @property
    def package(self) -> str | None:
        """`nn` for a file below `slm_jax/nn`, None for one elsewhere."""
        return self.parts[1] if self.parts[0] == "slm_jax" and len(self.parts) > 2 else None


def floors(source: Source) -> Iterator[str]:
    """Imports go to package-mates and lower floors only."""
    if source.package is None:
        return
    if source.package not in FLOOR:
        yield f"package {source.package} has no floor"
        return
    for line, name in imports(source.tree):
        target = name.split(".")[1] if name.startswith("slm_jax.") else None
        if name.startswith("."):
            yield f"line {line}: relative import"
        elif target == source.package or target is None:
            continue
        elif target not in FLOOR:
            yield f"line {line}: {name} has no floor"
        elif FLOOR[target] >= FLOOR[source.package]:
            yield f"line {line}: {source.package} (floor {FLOOR[source.package]}) imports {target} ({FLOOR[target]})"


def import_fences(source: Source) -> Iterator[str]:
    """Some libraries are imported in one package only; Flax not in packages without weights."""
    if source.package is None:
        return
    for line, name in imports(source.tree):
        root = name.split(".")[0]
        if root in IMPORT_FENCES and source.package not in IMPORT_FENCES[root]:
            yield f"line {line}: only {' and '.join(IMPORT_FENCES[root]) or 'nobody'} may import {root}"
        if root == "flax" and source.package in WITHOUT_FLAX:
            yield f"line {line}: {source.package} has no weights and imports no Flax"


def torch_inside_functions(source: Source) -> Iterator[str]:
    """PyTorch is optional: imported when called, and among the tests only in `tests/parity`.

    A whole file of tests may step aside when it is missing: `torch = pytest.importorskip("torch")`.
    """
    in_parity = source.parts[:2] == ("tests", "parity")
    for line, name in imports(source.tree):
        if name.split(".")[0] in ("torch", "torchaudio", "transformers"):
            if source.parts[0] == "tests" and not in_parity:
                yield f"line {line}: tests that need {name} live in tests/parity"
            elif line in module_level_lines(source.tree):
                yield f"line {line}: {name} is imported at module level"


def lifted_transforms(source: Source) -> Iterator[str]:
    """Only `nn/` scans, rematerialises, maps variables or intercepts."""
    if source.package in (None, "nn"):
        return
    aliases = {name for name, full in bound_names(source.tree).items() if full == "flax.linen"}
    for name, full in bound_names(source.tree).items():
        if full.startswith("flax.linen.") and full.split(".")[-1] in LIFTED:
            yield f"imports {full} as {name}"
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Attribute) and node.attr in LIFTED and dotted(node.value) in aliases | {"flax.linen"}:
            yield f"line {node.lineno}: {dotted(node)} belongs into nn/"


def mesh_builders(source: Source) -> Iterator[str]:
    """Only `parallel/` builds a mesh; others may name the type."""
    if source.package in (None, "parallel"):
        return
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Call) and dotted(node.func).split(".")[-1] in MESH_BUILDERS:
            yield f"line {node.lineno}: {dotted(node.func)}() belongs into parallel/"


def init_is_a_table_of_contents(source: Source) -> Iterator[str]:
    """An `__init__` holds its docstring and nothing else; the root may hold `__version__`."""
    if source.parts[-1] != "__init__.py" or source.parts[0] != "slm_jax":
        return
    if not ast.get_docstring(source.tree):
        yield "has no docstring"
    for node in source.tree.body[1:]:
        is_version = isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__version__"
        if not (is_version and source.path == "slm_jax/__init__.py"):
            yield f"line {node.lineno}: more than a docstring"


def file_names(source: Source) -> Iterator[str]:
    """A name says the concept; tests mirror the packages."""
    if FORBIDDEN_NAMES.search(Path(source.path).stem):
        yield "the name says nothing about the content"
    if source.parts[0] == "tests" and len(source.parts) > 2 and source.parts[1] not in TEST_FOLDERS:
        yield f"tests/{source.parts[1]} mirrors no package"


def sizes(source: Source) -> Iterator[str]:
    """Files and functions stay readable."""
    lines = source.text.count("\n")
    if lines > FILE_LINES:
        yield f"{lines} lines, at most {FILE_LINES}"
    for node in ast.walk(source.tree):
        if isinstance(node, ast.FunctionDef) and (length := function_lines(node)) > FUNCTION_LINES:
            yield f"line {node.lineno}: {node.name} has {length} lines, at most {FUNCTION_LINES}"


def nothing_unfinished(source: Source) -> Iterator[str]:
    """No stubs, no mocks, no old-style random keys."""
    for number, line in enumerate(source.text.splitlines(), 1):
        if UNFINISHED.search(line):
            yield f"line {number}: unfinished"
    for node in ast.walk(source.tree):
        name = node.id if isinstance(node, ast.Name) else node.attr if isinstance(node, ast.Attribute) else ""
        if name in ("NotImplementedError", "NotImplemented"):
            yield f"line {node.lineno}: {name}"
        if name == "PRNGKey":
            yield f"line {node.lineno}: jax.random.key, not PRNGKey"
    for line, name in imports(source.tree):
        if name.split(".")[-1] == "mock" or name.startswith("unittest.mock"):
            yield f"line {line}: mocks"


RULES = (
    floors,
    import_fences,
    torch_inside_functions,
    lifted_transforms,
    mesh_builders,
    init_is_a_table_of_contents,
    file_names,
    sizes,
    nothing_unfinished,
)


def imports(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """(line, full dotted name) of everything imported anywhere in the file."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            module = "." * node.level + (node.module or "")
            yield from ((node.lineno, f"{module}.{alias.name}") for alias in node.names)
        elif isinstance(node, ast.Call) and dotted(node.func).split(".")[-1] == "import_module":
            yield from ((node.lineno, arg.value) for arg in node.args if isinstance(arg, ast.Constant))


def bound_names(tree: ast.Module) -> dict[str, str]:
    """Local name -> full dotted name, for imports."""
    bound = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            bound.update({alias.asname: alias.name for alias in node.names if alias.asname})
        elif isinstance(node, ast.ImportFrom):
            bound.update({alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names})
    return bound


def module_level_lines(tree: ast.Module) -> set[int]:
    """Lines outside of any function."""
    inside = {
        line
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        for line in range(node.lineno + 1, (node.end_lineno or node.lineno) + 1)
    }
    return set(range(1, (tree.body[-1].end_lineno or 1) + 1 if tree.body else 1)) - inside


def dotted(node: ast.AST) -> str:
    """`jax.sharding.Mesh` for an attribute chain, an empty string for anything else."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value)}.{node.attr}"
    return ""


def function_lines(node: ast.FunctionDef) -> int:
    """Lines of a function, its docstring not counted."""
    docstring = node.body[0] if ast.get_docstring(node, clean=False) is not None else None
    skipped = (docstring.end_lineno or 0) - docstring.lineno + 1 if docstring else 0
    return (node.end_lineno or node.lineno) - node.lineno + 1 - skipped
