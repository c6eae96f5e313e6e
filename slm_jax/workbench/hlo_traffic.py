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
TRANSFER = re.compile(r'_xla_megascale_transfer_type="(\w+)"')
"""What slices send each other goes through their hosts."""
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


def traffic_of(module: Module, slices: int = 1) -> Traffic:
    """Read off a parsed program, which is that of one of `slices` slices; each loop counts as often as it turns."""
    memory, links, network = 0, Counter(dict.fromkeys(KINDS, 0)), Counter(dict.fromkeys(KINDS, 0))
    for computation, times, path in module.executed():
        memory += times * sum(moved(each, computation, module) for each in computation.instructions.values())
        for exchange in collectives(computation, module, path):
            links[exchange.kind] += times * exchange.bytes
        for each in computation.instructions.values():
            if each.opcode == "recv" and (transfer := TRANSFER.search(each.attributes)) is not None:
                kind = transfer[1].lower().replace("_", "-")
                network[kind] += round(
                    times * each.arrays[0].bytes * (2 * (slices - 1) / slices if "reduce" in kind else 1)
                )
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
    given = sum(array.bytes for name in instruction.operands for array in _arrays(name, holder))
    if kind == "collective-permute":
        return Collective(_whole(instruction, holder, module, path.rpartition("/")[2]), given)
    others = len(first_group(instruction.attributes, module.partitions)) - 1
    if kind == "all-gather":
        return Collective(kind, given * others)
    if "all-reduce-scatter" in holder.name:  # a sum of which each device cuts out its part
        kind = "reduce-scatter"
    return Collective(kind, round((2 if kind == "all-reduce" else 1) * given * others / (others + 1)))


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
        return _fusion(instruction, operands, module)
    if opcode.endswith("-start"):
        return _main(instruction.arrays)
    return _main(instruction.arrays) + sum(map(_main, operands))


def _fusion(instruction: Instruction, operands: list[tuple[Array, ...]], module: Module) -> int:
    body, aliased = module.computations[_fused(instruction)[0]], _aliases(instruction)
    total = 0
    for number, arrays in enumerate(operands):
        if number not in aliased.values() and _main(arrays):
            total += _read(number, _main(arrays), body, module)
    results = body.root.operands if body.root.opcode == "tuple" else (body.root.name,)
    for number, (array, name) in enumerate(zip(instruction.arrays, results, strict=False)):
        updated = _updated(name, body, module)
        if array.space == 0 and (updated is not None or number not in aliased):
            total += array.bytes if updated is None else updated
    return total


def _read(number: int, whole: int, body: Computation, module: Module) -> int:
    """Bytes of a fusion's operand, `whole` in all, that its body looks at."""
    parameter = next(
        (e for e in body.instructions.values() if e.opcode == "parameter" and e.inner == str(number)), None
    )
    return 0 if parameter is None else _looked_at(parameter.name, whole, body, module)


def _looked_at(name: str, whole: int, body: Computation, module: Module) -> int:
    total = 0
    for use in (each for each in body.instructions.values() if name in each.operands):
        if use.opcode in ("dynamic-slice", "slice", "gather") and use.operands[0] == name:
            total += sum(array.bytes for array in use.arrays)
        elif use.opcode == "bitcast":
            total += _looked_at(use.name, whole, body, module)
        elif use.opcode == "fusion":
            inner = module.computations[_fused(use)[0]]
            total += sum(_read(k, whole, inner, module) for k, given in enumerate(use.operands) if given == name)
        elif not (use.opcode == "dynamic-update-slice" and use.operands[0] == name):
            return whole
    return min(total, whole)


def _updated(name: str, body: Computation, module: Module) -> int | None:
    """Bytes that are put into a stack which stays where it is; None for a result that is written as a whole."""
    source = body.instructions.get(name)
    while source is not None and source.opcode == "bitcast":
        source = body.instructions.get(source.operands[0])
    if source is None:
        return None
    if source.opcode == "dynamic-update-slice":
        return sum(array.bytes for array in _arrays(source.operands[1], body))
    if source.opcode == "fusion" and len(source.arrays) == 1:
        inner = module.computations[_fused(source)[0]]
        return _updated(inner.root.name, inner, module)
    return None


def _aliases(instruction: Instruction) -> dict[int, int]:
    """Number of a result -> number of the operand whose memory it is."""
    found = ALIASES.search(instruction.attributes)
    pairs = ALIAS.findall(found[1]) if found else []
    return {int(result.split(",")[0] or 0): int(operand) for result, operand in pairs}


def _arrays(name: str, computation: Computation) -> tuple[Array, ...]:
    source = computation.instructions.get(name)
    return source.arrays if source is not None else ()


def _main(arrays: tuple[Array, ...]) -> int:
    """Bytes of the arrays in main memory."""
    return sum(array.bytes for array in arrays if array.space == 0)
