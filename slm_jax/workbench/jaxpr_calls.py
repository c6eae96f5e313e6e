"""A traced program with its calls written out: one list of equations over numbered values."""

import dataclasses
import itertools
from collections.abc import Iterator
from typing import Any

CALLS = {
    "jit": "jaxpr",
    "pjit": "jaxpr",
    "remat2": "jaxpr",
    "checkpoint": "jaxpr",
    "closed_call": "call_jaxpr",
    "core_call": "call_jaxpr",
    "custom_jvp_call": "call_jaxpr",
    "custom_vjp_call": "call_jaxpr",
    "custom_vjp_call_jaxpr": "fun_jaxpr",
}
"""Primitives that only call another program -> the parameter that holds it."""


@dataclasses.dataclass(frozen=True)
class Step:
    """One equation; `inputs` and `outputs` are numbers of values, None for a literal."""

    name: str
    params: dict[str, Any]
    inputs: tuple[int | None, ...]
    outputs: tuple[int, ...]
    shapes: tuple[Any, ...]
    """Abstract values of the outputs."""
    given: tuple[Any, ...]
    """Abstract values of the inputs."""
    label: str


@dataclasses.dataclass(frozen=True)
class Listing:
    """`inputs`: numbers of constants and arguments; `outputs` may name an input or be None (a literal)."""

    inputs: tuple[int, ...]
    outputs: tuple[int | None, ...]
    steps: tuple[Step, ...]


def written_out(jaxpr: Any) -> Listing:
    """The (closed) jaxpr with calls of other programs replaced by what these do; loops and branches stay."""
    jaxpr = getattr(jaxpr, "jaxpr", jaxpr)
    numbers = itertools.count()
    inputs = tuple(next(numbers) for _ in (*jaxpr.constvars, *jaxpr.invars))
    known: dict[Any, int | None] = dict(zip((*jaxpr.constvars, *jaxpr.invars), inputs, strict=True))
    steps = tuple(_steps(jaxpr, known, numbers))
    return Listing(inputs, tuple(_number(variable, known) for variable in jaxpr.outvars), steps)


def _steps(jaxpr: Any, known: dict[Any, int | None], numbers: Iterator[int]) -> Iterator[Step]:
    for equation in jaxpr.eqns:
        inputs = tuple(_number(variable, known) for variable in equation.invars)
        inner = equation.params.get(CALLS.get(equation.primitive.name, ""))
        if inner is None:
            outputs = tuple(next(numbers) for _ in equation.outvars)
            known.update(zip(equation.outvars, outputs, strict=True))
            label = str(equation.source_info.name_stack)
            shapes = tuple(variable.aval for variable in equation.outvars)
            given = tuple(variable.aval for variable in equation.invars)
            yield Step(equation.primitive.name, equation.params, inputs, outputs, shapes, given, label)
        else:
            yield from _called(getattr(inner, "jaxpr", inner), equation, inputs, known, numbers)


def _called(
    inner: Any, equation: Any, inputs: tuple[int | None, ...], known: dict[Any, int | None], numbers: Iterator[int]
) -> Iterator[Step]:
    here: dict[Any, int | None] = dict.fromkeys(inner.constvars, None)
    here |= zip(inner.invars, inputs[len(inputs) - len(inner.invars) :], strict=True)
    yield from _steps(inner, here, numbers)
    known.update(zip(equation.outvars, (_number(variable, here) for variable in inner.outvars), strict=True))


def _number(variable: Any, known: dict[Any, int | None]) -> int | None:
    return None if hasattr(variable, "val") else known.get(variable)
