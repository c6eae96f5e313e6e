"""What a compiled program moves per device and run: bytes of main memory, and bytes over the links by kind."""

import dataclasses
import re
from collections import Counter

from slm_jax.workbench.hlo_text import Array, Computation, Instruction, Module, first_group

KINDS = ("all-gather", "reduce-scatter", "all-reduce", "all-to-all", "collective-permute")
FREE = {
    "parameter",
    "constant",
    "tuple",
    "get-tuple-element",
    "bitcast",
    "while",
    "conditional",
    "call",
    "after-all",
    "partition-id",
    "replica-id",
    "opt-barrier",
    "iota",
}
"""Instructions that move nothing themselves."""
FREE_CALLS = ("AllocateBuffer", "ConcatBitcast")
PASSING = (
    *("bitcast", "copy", "copy-start", "copy-done", "convert", "fusion", "get-tuple-element", "slice"),
    *("collective-permute", "collective-permute-start", "collective-permute-done"),
)
"""Instructions that hand on what they are given."""
CHAIN = re.compile(r'chain_id="(\d+)"')
ALIASES = re.compile(r"output_to_operand_aliasing=\{(.*?\)) *\}")
ALIAS = re.compile(r"\{([\d, ]*)\}: \((\d+),")
WINDOWED = (("_ag", "all-gather"), ("_rs", "reduce-scatter"))


@dataclasses.dataclass(frozen=True)
class Traffic:
    """Bytes of one device in one run.

    `memory`: read from and written to main memory, as far as buffers lie there. `links`: kind of collective -> bytes
    that a device takes in when it is done in a ring, within a slice; `network`: the same between slices. `open_loops`:
    loops that were counted once since their length is not known.
    """

    memory: int
    links: dict[str, int]
    network: dict[str, int]
    open_loops: int = 0


@dataclasses.dataclass(frozen=True)
class Collective:
    """One exchange: `bytes` that a device takes in."""

    kind: str
    bytes: int
    devices: tuple[int, ...]


def traffic_of(module: Module, slices: int = 1) -> Traffic:
    """Read off a parsed program; each loop counts as often as it turns."""
    memory, links, network = 0, Counter(dict.fromkeys(KINDS, 0)), Counter(dict.fromkeys(KINDS, 0))
    in_slice = max(module.partitions // slices, 1)
    for computation, times, path in module.executed():
        memory += times * sum(moved(each, computation, module) for each in computation.instructions.values())
        for each in collectives(computation, module, path):
            apart = len({number // in_slice for number in each.devices}) > 1
            (network if apart else links)[each.kind] += times * each.bytes
    return Traffic(memory, dict(links), dict(network), module.open_loops())


def collectives(computation: Computation, module: Module, path: str = "") -> list[Collective]:
    """The exchanges of one computation, those inside its fusions included.

    An exchange that runs beside products appears in several fusions as one chain; it counts once. One that a loop of
    products does piece by piece (XLA's windowed products) is called what it does as a whole.
    """
    found, chains = [], set()
    for each in computation.instructions.values():
        inside = [computation] if _kind(each) else [module.computations[name] for name in _fused(each)]
        for holder in inside:
            members = [each] if holder is computation else list(holder.instructions.values())
            for instruction in members:
                chain = CHAIN.search(instruction.attributes)
                kind = _kind(instruction)
                if kind is None or (chain is not None and chain[1] in chains):
                    continue
                chains |= {chain[1]} if chain is not None else set()
                found.append(_collective(kind, instruction, holder, module, path))
    return found


def _fused(instruction: Instruction) -> list[str]:
    return instruction.called("calls") if instruction.opcode == "fusion" else []


def _kind(instruction: Instruction) -> str | None:
    opcode = instruction.opcode.removesuffix("-start")
    return opcode if opcode in KINDS else None


def _collective(kind: str, instruction: Instruction, holder: Computation, module: Module, path: str) -> Collective:
    devices = first_group(instruction.attributes, module.partitions)
    given = sum(array.bytes for name in instruction.operands for array in _arrays(name, holder))
    if kind == "collective-permute":
        whole = _whole(instruction, holder, module, path.rpartition("/")[2])
        pairs = re.findall(r"\{(\d+),(\d+)\}", instruction.attributes.partition("source_target_pairs=")[2])
        ends = next(((int(a), int(b)) for a, b in pairs if a != b), (0, 0))
        return Collective(whole, given, ends)
    share = (len(devices) - 1) / max(len(devices), 1)
    if kind == "all-gather":
        return Collective(kind, round(given * (len(devices) - 1)), tuple(devices))
    if (
        kind == "all-reduce"
        and any(each.opcode == "dynamic-slice" for each in holder.instructions.values())
        and ("all-reduce-scatter" in holder.name)
    ):
        kind = "reduce-scatter"
    return Collective(kind, round((2 if kind == "all-reduce" else 1) * share * given), tuple(devices))


def _whole(instruction: Instruction, holder: Computation, module: Module, loop: str) -> str:
    """What the steps round a ring, of which `instruction` is one, do together for a product.

    Weights go round to be gathered; sums go round, each device adding its part, to be scattered. XLA tells in the name
    of the loop; where it wrote the loop out, what is passed on is a sum or it is none.
    """
    if "windowed" in loop:
        return next((name for mark, name in WINDOWED if mark in loop), "collective-permute")
    if not instruction.label.endswith("dot_general"):
        return "collective-permute"
    return "reduce-scatter" if _is_sum(instruction.operands[0], holder, module) else "all-gather"


def _is_sum(name: str, holder: Computation, module: Module, depth: int = 64) -> bool:
    """Whether a value comes out of an addition or a product."""
    source = holder.instructions.get(name)
    if source is None or not source.operands or depth == 0:
        return False
    inside = [each for called in _fused(source) for each in module.computations[called].instructions.values()]
    if any(each.opcode in ("add", "convolution", "dot") for each in (source, *inside)):
        return True
    return source.opcode in PASSING and _is_sum(source.operands[0], holder, module, depth - 1)


def moved(instruction: Instruction, computation: Computation, module: Module) -> int:
    """Bytes of main memory that one instruction reads and writes.

    Of a stack that is sliced or updated in place only the slice counts; what stays where it is counts nothing.
    """
    opcode = instruction.opcode
    if opcode in FREE or opcode.endswith("-done") or any(name in instruction.attributes for name in FREE_CALLS):
        return 0
    operands = [_arrays(name, computation) for name in instruction.operands]
    if opcode in ("copy-start", "slice-start"):
        target = instruction.arrays[0] if opcode == "copy-start" else instruction.arrays[1]
        source = instruction.arrays[1] if opcode == "copy-start" else instruction.arrays[0]
        return target.bytes * ((target.space == 0) + (source.space == 0))
    if opcode in ("dynamic-slice", "gather", "slice"):
        return 2 * _main(instruction.arrays)
    if opcode in ("dynamic-update-slice", "scatter"):
        return 2 * _main(operands[1 if opcode == "dynamic-update-slice" else -1])
    if opcode == "fusion":
        return _fusion(instruction, operands, module.computations[_fused(instruction)[0]])
    if opcode.endswith("-start"):
        return _main(instruction.arrays)
    return _main(instruction.arrays) + sum(map(_main, operands))


def _fusion(instruction: Instruction, operands: list[tuple[Array, ...]], body: Computation) -> int:
    aliased = _aliases(instruction)
    parameters = {int(e.inner): e for e in body.instructions.values() if e.opcode == "parameter"}
    total = 0
    for number, arrays in enumerate(operands):
        if number not in aliased.values() and number in parameters:
            total += _read(parameters[number], arrays, body)
    results = body.root.operands if body.root.opcode == "tuple" else (body.root.name,)
    for number, (array, name) in enumerate(zip(instruction.arrays, results, strict=False)):
        written = body.instructions.get(name)
        if written is not None and written.opcode == "dynamic-update-slice":
            total += _main(_arrays(written.operands[1], body), force=array.space == 0)
        elif number not in aliased:
            total += _main((array,))
    return total


def _read(parameter: Instruction, arrays: tuple[Array, ...], body: Computation) -> int:
    """Bytes of a fusion's operand that its body looks at."""
    uses = [each for each in body.instructions.values() if parameter.name in each.operands]
    total = 0
    for use in uses:
        if use.opcode in ("dynamic-slice", "slice", "gather") and use.operands[0] == parameter.name:
            total += _main(use.arrays, force=_main(arrays) > 0)
        elif not (use.opcode == "dynamic-update-slice" and use.operands[0] == parameter.name):
            return _main(arrays)
    return min(total, _main(arrays))


def _aliases(instruction: Instruction) -> dict[int, int]:
    """Number of a result -> number of the operand whose memory it is."""
    found = ALIASES.search(instruction.attributes)
    pairs = ALIAS.findall(found[1]) if found else []
    return {int(result.split(",")[0] or 0): int(operand) for result, operand in pairs}


def _arrays(name: str, computation: Computation) -> tuple[Array, ...]:
    source = computation.instructions.get(name)
    return source.arrays if source is not None else ()


def _main(arrays: tuple[Array, ...], force: bool = False) -> int:
    """Bytes of the arrays in main memory; of all of them with `force`."""
    return sum(array.bytes for array in arrays if force or array.space == 0)
