"""Carry weights over: a PyTorch folder (or hub:NAME) into a model folder of ours, and back."""

import dataclasses
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from slm_jax.cli.options import parse_options
from slm_jax.core.errors import UserError, require

NUMBERS = Literal["float32", "bfloat16", "float16"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class ConvertOptions:
    """Carry weights over. What the source is decides the direction; the destination appears whole or not at all."""

    source: Annotated[str, tyro.conf.Positional]
    """A folder as the hub lays it out, a file of weights beside its config.json, or hub:NAME; for the way back a model
    folder that this verb made, or a stage of a run (RUN/stages/NAME)."""
    destination: Annotated[Path, tyro.conf.Positional]
    """A new folder."""
    to: Literal["jax", "torch"] | None = None
    """Make sure of the direction."""
    mesh: int | None = None
    """To jax: lay the weights out for this many devices, each of which then reads its own share (rules fsdp)."""
    dtype: NUMBERS | None = None
    """Of the numbers written; float32 unless given."""
    spelling: str | None = None
    """To torch: the names of the weights, where a family has several; by default its first."""
    family: str | None = None
    """To torch: the family, where several can say the model; by default the one it came from, else the first."""
    shard_gb: float = 5.0
    """To torch: the largest file of weights, in 10^9 bytes."""
    add_tokens: tuple[str, ...] = ()
    """To jax: special tokens that the text LM and its tokenizer are to know besides, such as task tags."""
    unchecked: bool = False
    """To torch: write weights that are not finite, and matrices that are all zero, instead of refusing them."""
    json: bool = False
    """Print one JSON value instead of text."""


def main(argv: list[str]) -> dict[str, Any]:
    """Write the destination; print and return what was carried over."""
    from slm_jax.checkpoints.whole_folder import refuse_existing

    options = parse_options(ConvertOptions, argv, "convert")
    require(options.mesh is None or options.mesh >= 1, "--mesh", options.mesh, "must be at least 1")
    require(options.shard_gb > 0, "--shard-gb", options.shard_gb, "must be positive")
    refuse_existing(options.destination)
    source, to = opened(options.source)
    to = "jax" if options.add_tokens else to
    require(options.to in (None, to), "--to", options.to, f"{options.source} goes to {to}")
    unfit = {"torch": ("mesh",), "jax": ("spelling", "family")}[to]
    for name in unfit:
        require(
            getattr(options, name) is None, f"--{name}", getattr(options, name), f"has no meaning on the way to {to}"
        )
    made = with_more_tokens if options.add_tokens else to_jax if to == "jax" else to_torch
    result = made(options, source)
    print(
        f"{result['destination']}: {result['family']}, {result['parameters'] / 1e6:.1f} M parameters, {result['dtype']}"
    )
    return result


def opened(source: str) -> tuple[Path, str]:
    """The source as a path on this machine, and where it goes."""
    from slm_jax.interop.hub import PREFIX, snapshot

    if source.startswith(PREFIX):
        return snapshot(source), "jax"
    path = Path(source)
    require(path.exists(), "source", source, "there is no such file or folder (a model of the hub is hub:NAME)")
    if (path / "run.json").is_file():
        stages = sorted(done.parent.name for done in path.glob("stages/*/done.json"))
        raise UserError(f"{source} is a run: name one of its stages, {source}/stages/NAME (done: {', '.join(stages)})")
    ours = (path / "model.json").is_file() or (path / "stage.json").is_file()
    return path, "torch" if ours else "jax"


def to_jax(options: ConvertOptions, source: Path) -> dict[str, Any]:
    """A hub folder as a model folder."""
    import numpy as np

    from slm_jax.core.trees import count_parameters
    from slm_jax.data.progress import counted
    from slm_jax.interop.hub import carried
    from slm_jax.interop.model import DTYPES, open_model
    from slm_jax.interop.streaming import import_streamed

    model = open_model(source)
    number = options.dtype or "float32"
    count = count_parameters(model.plan.targets)
    files = carried(source if source.is_dir() else source.parent)
    meta = {"source": options.source, "family": model.family.name, "spelling": model.spelling, "mesh": options.mesh}
    with counted(count * np.dtype(DTYPES[number]).itemsize, "convert") as bar:
        import_streamed(
            model,
            options.destination,
            meta,
            dtype=number,
            devices=options.mesh,
            files=files,
            told=bar.update,
        )
    return summary(options, "jax", model.family.name, number, count, files)


def with_more_tokens(options: ConvertOptions, source: Path) -> dict[str, Any]:
    """A text LM, of a hub folder or ours, as a model folder that knows more tokens."""
    from slm_jax.core.trees import count_parameters
    from slm_jax.interop.families import family_for
    from slm_jax.interop.hub import carried
    from slm_jax.interop.more_tokens import with_tokens

    for name in ("mesh", "dtype"):
        require(getattr(options, name) is None, f"--{name}", getattr(options, name), "does not go with --add-tokens")
    config = with_tokens(str(source), options.destination, options.add_tokens)
    family = family_for(config)
    return summary(options, "jax", family.name, "float32", count_parameters(family.abstract(config)), carried(source))


def to_torch(options: ConvertOptions, source: Path) -> dict[str, Any]:
    """A model folder, or a stage of a run, as a hub folder."""
    import tempfile

    from slm_jax.core.trees import count_parameters
    from slm_jax.data.progress import counted
    from slm_jax.interop.engine import export_shapes
    from slm_jax.interop.families import family_for, family_named
    from slm_jax.interop.hub import carried
    from slm_jax.interop.model import export
    from slm_jax.interop.streaming import readable_by_layer

    config, params, meta = taken(source)
    name = options.family or meta.get("family")
    family = family_for(config) if name is None else family_named(name)
    spelling = options.spelling or family.spellings[0]
    require(spelling in family.spellings, "--spelling", spelling, f"{family.name} has {', '.join(family.spellings)}")
    family.write_config(config)  # before the bar: it names what the family can't say
    table = family.table(config, spelling)
    number, count, files = options.dtype or "float32", count_parameters(params), carried(source)
    options.destination.absolute().parent.mkdir(parents=True, exist_ok=True)
    with (
        counted(len(export_shapes(table, params)), "convert", unit=" tensors") as bar,
        tempfile.TemporaryDirectory(dir=options.destination.absolute().parent) as scratch,
    ):
        export(
            config,
            readable_by_layer(params, Path(scratch)),
            options.destination,
            spelling=spelling,
            dtype=number,
            family=family.name,
            shard_bytes=round(options.shard_gb * 1e9),
            on_tensor=lambda name: bar.update(),
            files=files,
            checked=not options.unchecked,
        )
    return summary(options, "torch", family.name, number, count, files)


def taken(source: Path) -> tuple[Any, Any, dict[str, Any]]:
    """Config, parameters and origin of a model folder or of a stage."""
    from slm_jax.checkpoints.model_folder import open_stored, read_meta
    from slm_jax.training.run_folder import StageFolder
    from slm_jax.training.stage_model import stage_model

    if (source / "model.json").is_file():
        return *open_stored(source), read_meta(source)
    return *stage_model(StageFolder(source)), {}


def summary(options: ConvertOptions, to: str, family: str, dtype: str, count: int, files: list[Path]) -> dict[str, Any]:
    """What `--json` gives."""
    return {
        "source": options.source,
        "destination": str(options.destination),
        "to": to,
        "family": family,
        "dtype": dtype,
        "parameters": count,
        "mesh": options.mesh,
        "carried": [file.name for file in files],
    }
