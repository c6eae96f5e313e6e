"""Floors and fences: the repository keeps the rules of `rules.py`, and every rule catches what it forbids."""

import ast
import statistics
from functools import cache
from pathlib import Path

import pytest

from tests.house import rules
from tests.house.rules import RULES, Source

ROOT = Path(__file__).parents[2]


@cache
def python_files() -> tuple[Source, ...]:
    paths = [path for top in ("slm_jax", "tests", "configs", "experiments") for path in (ROOT / top).rglob("*.py")]
    return tuple(Source(p.relative_to(ROOT).as_posix(), p.read_text(encoding="utf-8")) for p in sorted(paths))


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_the_repository_keeps(rule):
    found = [f"{source.path}: {problem}" for source in python_files() for problem in rule(source)]
    assert not found, "\n" + "\n".join(found)


def test_functions_are_short_in_the_middle():
    lengths = [
        rules.function_lines(node)
        for source in python_files()
        if source.parts[0] == "slm_jax"
        for node in ast.walk(source.tree)
        if isinstance(node, ast.FunctionDef)
    ]
    assert statistics.median(lengths) <= 12


VIOLATIONS = [
    (rules.floors, "slm_jax/nn/a.py", "from slm_jax.encoders.ssl import SSL"),
    (rules.floors, "slm_jax/nn/a.py", "import slm_jax.checkpoints.manager"),
    (rules.floors, "slm_jax/audio/a.py", "def f():\n    from slm_jax.text import vocabulary"),
    (rules.floors, "slm_jax/core/a.py", "from slm_jax import nn"),
    (rules.floors, "slm_jax/nn/a.py", "from .linear import Dense"),
    (rules.floors, "slm_jax/nn/a.py", "from slm_jax.attic import Dense"),
    (rules.floors, "slm_jax/attic/a.py", "import jax"),
    (rules.import_fences, "slm_jax/training/a.py", "import orbax.checkpoint as ocp"),
    (rules.import_fences, "slm_jax/training/a.py", "def f():\n    from orbax import checkpoint"),
    (rules.import_fences, "slm_jax/training/a.py", "import grain"),
    (rules.import_fences, "slm_jax/audio/a.py", "import tensorflow_datasets as tfds"),
    (rules.import_fences, "slm_jax/encoders/a.py", "def f():\n    import torch"),
    (rules.import_fences, "slm_jax/encoders/a.py", "import importlib\nm = importlib.import_module('torch')"),
    (rules.import_fences, "slm_jax/text/a.py", "from flax import linen as nn"),
    (rules.import_fences, "slm_jax/data/a.py", "def f():\n    import apache_beam as beam"),
    (rules.torch_inside_functions, "slm_jax/interop/a.py", "import torch"),
    (rules.torch_inside_functions, "slm_jax/interop/a.py", "try:\n    from transformers import X\nexcept E:\n    pass"),
    (rules.torch_inside_functions, "tests/parity/test_a.py", "import torch.nn as nn"),
    (rules.torch_inside_functions, "tests/nn/test_a.py", "def test_a():\n    import torch"),
    (rules.lifted_transforms, "slm_jax/encoders/a.py", "from flax import linen as nn\nf = nn.scan(g)"),
    (rules.lifted_transforms, "slm_jax/encoders/a.py", "import flax.linen as fl\nf = fl.remat(g)"),
    (rules.lifted_transforms, "slm_jax/encoders/a.py", "import flax.linen\nf = flax.linen.map_variables(g)"),
    (rules.lifted_transforms, "slm_jax/training/a.py", "from flax.linen import intercept_methods as im"),
    (rules.mesh_builders, "slm_jax/training/a.py", "mesh = jax.make_mesh((8,), ('data',))"),
    (rules.mesh_builders, "slm_jax/training/a.py", "mesh = jax.sharding.Mesh(devices, ('data',))"),
    (rules.mesh_builders, "slm_jax/nn/a.py", "mesh = Mesh(devices, ('data',))"),
    (rules.init_is_a_table_of_contents, "slm_jax/nn/__init__.py", '"""Layers."""\nfrom slm_jax.nn import linear'),
    (rules.init_is_a_table_of_contents, "slm_jax/nn/__init__.py", '"""Layers."""\n__version__ = "1"'),
    (rules.init_is_a_table_of_contents, "slm_jax/nn/__init__.py", ""),
    (rules.file_names, "slm_jax/nn/utils.py", ""),
    (rules.file_names, "slm_jax/nn/shape_helpers.py", ""),
    (rules.file_names, "slm_jax/nn/attention_v2.py", ""),
    (rules.file_names, "tests/attic/test_a.py", ""),
    (rules.sizes, "slm_jax/nn/a.py", "x = 1\n" * 401),
    (rules.sizes, "slm_jax/nn/a.py", "def f():\n" + "    x = 1\n" * 80),
    (rules.nothing_unfinished, "slm_jax/nn/a.py", "x = 1  # " + "TO" + "DO later"),
    (rules.nothing_unfinished, "slm_jax/nn/a.py", "def f():\n    raise " + "NotImplemented" + "Error"),
    (rules.nothing_unfinished, "slm_jax/nn/a.py", "key = jax.random." + "PRNGKey(0)"),
    (rules.nothing_unfinished, "tests/nn/test_a.py", "from unittest import mock"),
]


@pytest.mark.parametrize(("rule", "path", "text"), VIOLATIONS)
def test_a_violation_is_caught(rule, path, text):
    assert list(rule(Source(path, text)))


ALLOWED = [
    ("slm_jax/nn/linear.py", "from flax import linen as nn\nfrom slm_jax.core import types\nf = nn.remat(g)"),
    ("slm_jax/encoders/a.py", "from slm_jax.nn.linear import Dense\nfrom slm_jax.encoders import b"),
    ("slm_jax/objectives/a.py", "import jax\nf = jax.checkpoint(g)\ny = jax.lax.scan(f, 0, x)"),
    ("slm_jax/training/a.py", "from jax.sharding import Mesh\ndef f(mesh: Mesh): ..."),
    ("slm_jax/parallel/mesh.py", "mesh = jax.make_mesh((8,), ('data',))"),
    ("slm_jax/interop/a.py", "def f():\n    import torch"),
    ("tests/parity/test_a.py", "torch = pytest.importorskip('torch')\ndef test_a():\n    import transformers"),
    ("slm_jax/__init__.py", '"""Spoken language models."""\n\n__version__ = "0.1.0"'),
    ("slm_jax/nn/a.py", "def f():\n" + '    """' + "words\n    " * 100 + '"""\n    return 1\n'),
]


@pytest.mark.parametrize(("path", "text"), ALLOWED)
def test_what_is_allowed_passes(path, text):
    assert [problem for rule in RULES for problem in rule(Source(path, text))] == []
