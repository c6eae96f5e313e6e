"""Mapping tables: which name of a checkpoint is which leaf of our tree. Data only: `interop.engine` reads them."""

from dataclasses import dataclass, field, replace

from slm_jax.interop.transforms import SAME, Transform

LAYER = "{i}"


@dataclass(frozen=True)
class Rule:
    """Some source names <-> some target paths, in one transform.

    `{i}` stands for the layer number. When only the sources have it, the layers are stacked on axis 0 of the targets;
    when the targets have it too, each layer is a leaf of its own.
    Several rules may have the same targets: the first whose sources are there reads them (other spellings of one
    weight), and the first of all writes them.
    `optional`: our model may have no place for it, the sources are left aside then.
    """

    sources: tuple[str, ...]
    targets: tuple[str, ...]
    transform: Transform = SAME
    optional: bool = False


@dataclass(frozen=True)
class Table:
    """All rules of one spelling of one family.

    `ignored`: regular expressions (whole name) of sources that carry nothing.
    `tied`: name of a copy -> name of the original. Not required and never written; where both are there they must be
    equal, where only the copy is there it is read instead.
    `renames`: (regular expression, replacement) applied to every source name first, in order.
    """

    rules: tuple[Rule, ...]
    ignored: tuple[str, ...] = ()
    tied: dict[str, str] = field(default_factory=dict)
    renames: tuple[tuple[str, str], ...] = ()


def rule(source: str, target: str, transform: Transform = SAME, optional: bool = False) -> Rule:
    """A rule of one source and one target."""
    return Rule((source,), (target,), transform, optional)


def norm(source: str, target: str, bias: bool = True) -> tuple[Rule, ...]:
    """The rules of a normalisation layer."""
    scale = rule(f"{source}.weight", f"{target}/scale")
    return (scale, rule(f"{source}.bias", f"{target}/bias")) if bias else (scale,)


def weights(source: str, target: str, kernel: Transform, bias: Transform | None = None) -> tuple[Rule, ...]:
    """The rules of a layer with `weight` and, where `bias` says how it is laid out, `bias`."""
    first = rule(f"{source}.weight", f"{target}/kernel", kernel)
    return (first,) if bias is None else (first, rule(f"{source}.bias", f"{target}/bias", bias))


def lstm(source: str, target: str, layers: int, kernel: Transform) -> tuple[Rule, ...]:
    """The rules of PyTorch's `nn.LSTM` of one direction against ours."""
    return tuple(
        one
        for layer in range(layers)
        for theirs, ours in (("ih", "in"), ("hh", "back"))
        for one in (
            rule(f"{source}.weight_{theirs}_l{layer}", f"{target}/kernel_{ours}_{layer}", kernel),
            rule(f"{source}.bias_{theirs}_l{layer}", f"{target}/bias_{ours}_{layer}"),
        )
    )


def below(rules: tuple[Rule, ...], source: str, target: str) -> tuple[Rule, ...]:
    """The rules of a part that is one of several: its names begin with `source`, its paths with `target`."""
    return tuple(
        replace(
            one,
            sources=tuple(f"{source}{name}" for name in one.sources),
            targets=tuple(f"{target}{path}" for path in one.targets),
        )
        for one in rules
    )
