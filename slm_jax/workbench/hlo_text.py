"""The text of a compiled program as data: computations, instructions, sizes, loops and groups of devices."""

import dataclasses
import math
import re
from collections.abc import Iterator
from functools import cached_property

import numpy as np

BITS = {"pred": 8, "token": 0, "opaque": 0, "bf16": 16, "c64": 64, "c128": 128}
"""Types whose name does not end in their bits."""
ARRAY = re.compile(r"\b(pred|token|opaque|bf16|[a-z]+\d+\w*)\[([\d,]*)\](\{[^{}]*\})?")
SPACE = re.compile(r"S\((\d+)\)")
HEAD = re.compile(r"^(ENTRY )?%?([\w.\-]+) \(.*\{$")
LINE = re.compile(r"^\s+(ROOT )?%?([\w.\-]+) = ")
NAME = re.compile(r"%([\w.\-]+)")
MESH_GROUPS = re.compile(r"replica_groups=mesh\[([^\]]*)\]\s*\{([^}]*)\}")
IOTA_GROUPS = re.compile(r"replica_groups=\[([\d,]+)\]<=\[([\d,]+)\](?:T\(([\d,]+)\))?")
LISTED_GROUPS = re.compile(r"replica_groups=\{\{([\d,]*)\}")
PASSING = ("copy", "bitcast", "convert", "copy-done", "copy-start")
"""Instructions that hand on a scalar as it is."""
KNOWN_TRIPS = re.compile(r'"?known_trip_count"?:\s*\{\s*"?n"?:\s*"?(\d+)')


@dataclasses.dataclass(frozen=True)
class Array:
    """One array of a type; `space` 0 is the device's main memory (1: on chip, others: scalars, semaphores, host)."""

    dtype: str
    shape: tuple[int, ...]
    space: int

    @property
    def bytes(self) -> int:
        """Size without padding of tiles."""
        bits = BITS.get(self.dtype)
        if bits is None:
            found = re.match(r"[a-z]+(\d+)", self.dtype)
            bits = int(found[1]) if found else 32
        return math.prod(self.shape) * bits // 8


@dataclasses.dataclass(frozen=True)
class Instruction:
    """`name = type opcode(operands), attributes`."""

    name: str
    type: str
    opcode: str
    operands: tuple[str, ...]
    inner: str
    attributes: str
    is_root: bool

    @cached_property
    def arrays(self) -> tuple[Array, ...]:
        """What it returns, tuples laid flat."""
        return arrays_of(self.type)

    def called(self, *keys: str) -> list[str]:
        """Names of the computations under these attributes, such as `body`."""
        names = []
        for key in keys:
            for match in re.finditer(rf"\b{key}=(\{{[^}}]*\}}|%?[\w.\-]+)", self.attributes):
                names += NAME.findall(match[1]) or [match[1]]
        return names

    @property
    def label(self) -> str:
        """The JAX operation it comes from, its own name where that is not known."""
        found = re.search(r'op_name="([^"]*)"', self.attributes)
        return found[1] if found else self.name


@dataclasses.dataclass(frozen=True)
class Computation:
    """Instructions in their order."""

    name: str
    instructions: dict[str, Instruction]

    @property
    def root(self) -> Instruction:
        """What it returns."""
        return next(each for each in reversed(self.instructions.values()) if each.is_root)


@dataclasses.dataclass(frozen=True)
class Module:
    """A compiled program for one device of `partitions`."""

    computations: dict[str, Computation]
    entry: str
    partitions: int

    def trips(self, loop: Instruction) -> int | None:
        """How often a `while` turns: what XLA wrote down, else from its counter's start, step and end."""
        known = KNOWN_TRIPS.search(loop.attributes)
        if known:
            return int(known[1])
        counter, end = self._compared(self.computations[loop.called("condition")[0]])
        if end is None:
            return None
        body = self.computations[loop.called("body")[0]]
        step = None if counter is None else self._step(body, counter)
        return max(0, -(-end // (step or 1)))

    def _compared(self, condition: Computation) -> tuple[int | None, int | None]:
        """(number of the counter in the loop's state, the constant it is compared with); counters begin at 0."""
        holder, root = condition, condition.root
        if root.opcode == "fusion":
            holder = self.computations[root.called("calls")[0]]
            root = holder.root
        sides = [self.origin(name, holder) for name in root.operands]
        if holder is not condition:
            outer = condition.root.operands
            sides = [
                self.origin(outer[value], condition) if kind == "parameter" else (kind, value) for kind, value in sides
            ]
        found = dict(sides)
        constants = [value for kind, value in sides if kind == "constant"]
        return found.get("element"), constants[0] if len(constants) == 1 else None

    def _step(self, body: Computation, counter: int) -> int | None:
        """What a turn adds to the counter: XLA writes several turns out in one."""
        source = body.instructions.get(body.root.operands[counter]) if body.root.opcode == "tuple" else None
        holder = body
        while source is not None and source.opcode in ("fusion", *PASSING) and source.operands:
            if source.opcode == "fusion":
                holder = self.computations[source.called("calls")[0]]
                source = holder.root
            else:
                source = holder.instructions.get(source.operands[0])
        if source is None or source.opcode != "add":
            return None
        constants = [value for kind, value in (self.origin(n, holder) for n in source.operands) if kind == "constant"]
        return constants[0] if len(constants) == 1 and constants[0] > 0 else None

    def origin(self, name: str, computation: Computation) -> tuple[str, int]:
        """Where a scalar comes from: ("constant", value), ("element", of the state), ("parameter", number)."""
        source = computation.instructions.get(name)
        while source is not None and source.opcode in PASSING:
            source = computation.instructions.get(source.operands[0])
        if source is None:
            return "unknown", -1
        if source.opcode == "constant" and source.inner.lstrip("-").isdigit():
            return "constant", int(source.inner)
        if source.opcode == "get-tuple-element":
            found = re.search(r"index=(\d+)", source.attributes)
            return "element", int(found[1]) if found else -1
        if source.opcode == "parameter":
            return "parameter", int(source.inner)
        return "unknown", -1

    def executed(self) -> Iterator[tuple[Computation, int, str]]:
        """(computation, times, loops around it) of everything that runs step by step; fusions count as one step."""
        yield from self._executed(self.entry, 1, "")

    def _executed(self, name: str, times: int, path: str) -> Iterator[tuple[Computation, int, str]]:
        computation = self.computations[name]
        yield computation, times, path
        for each in computation.instructions.values():
            if each.opcode == "while":
                inside = f"{path}/{each.name}:{each.called('body')[0]}"
                yield from self._executed(each.called("body")[0], times * (self.trips(each) or 1), inside)
            elif each.opcode in ("call", "async-start", "conditional"):
                for called in each.called("to_apply", "calls", "called_computations", "branch_computations"):
                    yield from self._executed(called, times, path)

    def open_loops(self) -> int:
        """Loops whose number of turns is not to be seen."""
        loops = [e for c, _, _ in self.executed() for e in c.instructions.values() if e.opcode == "while"]
        return sum(self.trips(each) is None for each in loops)


def parse_module(text: str) -> Module:
    """The module that `compiled.as_text()` prints."""
    computations: dict[str, Computation] = {}
    entry, current = "", {}
    for line in text.splitlines():
        if line.startswith((" ", "\t")):
            instruction = parse_instruction(line)
            if instruction is not None:
                current[instruction.name] = instruction
        elif (head := HEAD.match(line)) is not None:
            current = {}
            computations[head[2]] = Computation(head[2], current)
            entry = head[2] if head[1] else entry
    partitions = re.search(r"num_partitions=(\d+)", text[: text.find("\n")])
    return Module(computations, entry, int(partitions[1]) if partitions else 1)


def parse_instruction(line: str) -> Instruction | None:
    """One line; None for what is no instruction."""
    head = LINE.match(line)
    if head is None:
        return None
    rest = line[head.end() :]
    end = closing(rest, 0) + 1 if rest.startswith("(") else rest.find(" ")
    opening = rest.find("(", end)
    if end <= 0 or opening < 0:
        return None
    close = closing(rest, opening)
    inner = rest[opening + 1 : close]
    return Instruction(
        name=head[2],
        type=rest[:end],
        opcode=rest[end:opening].strip(),
        operands=tuple(NAME.findall(inner)),
        inner=inner,
        attributes=rest[close + 1 :],
        is_root=head[1] is not None,
    )


def closing(text: str, opening: int) -> int:
    """Where the bracket that opens at `opening` closes."""
    depth = 0
    for position in range(opening, len(text)):
        depth += {"(": 1, ")": -1}.get(text[position], 0)
        if depth == 0:
            return position
    return len(text)


def arrays_of(type_text: str) -> tuple[Array, ...]:
    """`(f32[8,4]{1,0}, s32[])` -> its arrays."""
    found = []
    for dtype, sizes, layout in ARRAY.findall(type_text):
        space = SPACE.search(layout or "")
        shape = tuple(int(size) for size in sizes.split(",") if size)
        found.append(Array(dtype, shape, int(space[1]) if space else 0))
    return tuple(found)


def first_group(attributes: str, partitions: int) -> list[int]:
    """The devices of the first group of a collective, by their number in the mesh."""
    if found := MESH_GROUPS.search(attributes):
        return _mesh_group(found[1], found[2])
    if found := IOTA_GROUPS.search(attributes):
        groups, sizes = ([int(size) for size in part.split(",")] for part in found.group(1, 2))
        order = np.arange(math.prod(sizes)).reshape(sizes)
        if found[3]:
            order = order.transpose([int(axis) for axis in found[3].split(",")])
        return order.reshape(groups).reshape(-1, groups[-1])[0].tolist()
    if (found := LISTED_GROUPS.search(attributes)) and found[1]:
        return [int(number) for number in found[1].split(",")]
    return list(range(partitions))


def _mesh_group(mesh: str, listed: str) -> list[int]:
    """`'a'=2,'b'=4` and `'b'` -> [0, 1, 2, 3]; `'b':(2)2` is the inner half of b after its outer 2."""
    sizes = {name: int(size) for name, size in re.findall(r"'(\w+)'=(\d+)", mesh)}
    order = np.arange(math.prod(sizes.values())).reshape(list(sizes.values()))
    picks: list[slice | int | np.ndarray] = [0] * len(sizes)
    for name, before, size in re.findall(r"'(\w+)'(?::\((\d+)\)(\d+))?", listed):
        axis = list(sizes).index(name)
        step = 1 if not size else sizes[name] // (int(before) * int(size))
        picks[axis] = slice(0, sizes[name] if not size else step * int(size), step)
    return np.atleast_1d(order[tuple(picks)]).ravel().tolist()
