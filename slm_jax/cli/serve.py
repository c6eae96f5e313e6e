"""Talk to the system in a run folder: a page for people, a socket for programs."""

import contextlib
import copy
import dataclasses
import importlib.util
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from slm_jax.cli.console import say, table
from slm_jax.cli.generate import split_decoding
from slm_jax.cli.options import override_config, parse_options
from slm_jax.core.errors import UserError, require

if TYPE_CHECKING:
    from slm_jax.core.contracts import System
    from slm_jax.serving.replies import Replies
    from slm_jax.serving.rooms import Room


@dataclasses.dataclass(frozen=True, kw_only=True)
class ServeOptions:
    """A system that streams is heard through an open microphone, others by push to talk. Ctrl-C ends it.

    The socket speaks events of OpenAI's Realtime API (docs/serve.md). How the system decodes is a config of its own:
    any field of it may be set, `--decoding.temperature 0.5`.
    """

    run: Annotated[Path, tyro.conf.Positional]
    """The run folder that `train` made."""
    port: int = 8600
    """Where the page is; 0 for any free one."""
    host: str = "127.0.0.1"
    """This machine alone; 0.0.0.0 for all its addresses, where browsers give the microphone to https pages only."""
    seats: int = 4
    """People at once."""
    minutes: float = 30.0
    """Of a session."""
    push_to_talk: bool = False
    """Speak in turns also where the system streams."""
    together: int = 1
    """Replies made at once where one speaks in turns: last digits may then depend on who else asks."""
    origins: tuple[str, ...] = ()
    """Other sites whose pages may talk to this one, such as https://example.org."""
    seed: int = 0
    """Another seed, other replies."""
    data_dir: Path = Path("data")
    """Where the corpus is, for a run folder of an older version, which keeps no speech of its own."""
    json: bool = False
    """Print what was measured as one JSON value instead of text."""


def main(argv: list[str]) -> dict[str, Any]:
    """Serve until Ctrl-C; print and return how long people waited."""
    own, changes = split_decoding(argv)
    options = parse_options(ServeOptions, own, "serve")
    check(options)
    from slm_jax.serving.web.limits import Limits
    from slm_jax.serving.web.site import Site, served

    name, system = opened(options, changes)
    with engine_of(system, options) as engine:
        limits = Limits(minutes=options.minutes)
        site = Site(name, system, engine, seats=options.seats, limits=limits, origins=options.origins)
        with served(site, options.host, options.port) as address:
            print(f"{name} is at {address} (Ctrl-C ends it)", flush=True)
            wait_for_ever()
        figures = engine.figures()
    print(told(figures))
    return {"run": str(options.run), "address": address, **figures}


def check(options: ServeOptions) -> None:
    """Mistakes, before anything is loaded."""
    require(
        importlib.util.find_spec("aiohttp") is not None, "serve", "aiohttp", "is missing: pip install 'slm_jax[serve]'"
    )
    require(0 <= options.port < 65_536, "--port", options.port, "must be 0 to 65535")
    for name in ("seats", "together"):
        require(getattr(options, name) >= 1, f"--{name}", getattr(options, name), "must be at least 1")
    require(options.minutes > 0, "--minutes", options.minutes, "must be above 0")


def opened(options: ServeOptions, changes: list[str]) -> tuple[str, "System"]:
    """The run's name and its system, which decodes as the flags want it."""
    from slm_jax.training.run_folder import RunFolder
    from slm_jax.training.stages import StageContext, read_run_config

    run = RunFolder(options.run)
    config = read_run_config(run)
    system = config.load(StageContext(run, config.corpus, options.data_dir))
    if changes:
        system = copy.copy(system)
        object.__setattr__(system, "decoding", override_config(system.decoding, changes, prog="serve"))
    return config.name, system


def engine_of(system: "System", options: ServeOptions) -> "Room | Replies":
    """A room where the system streams, else a queue of replies."""
    from slm_jax.core.contracts import Opens
    from slm_jax.serving.replies import Replies
    from slm_jax.serving.rooms import Room

    if isinstance(system, Opens) and not options.push_to_talk:
        try:
            return Room(system.open(options.seats))
        except UserError as error:
            say(f"push to talk, since this system does not stream: {error}")
    return Replies(system, together=options.together, seed=options.seed)


def wait_for_ever() -> None:
    """Until Ctrl-C."""
    with contextlib.suppress(KeyboardInterrupt):
        while True:
            time.sleep(3600)


def told(figures: dict[str, Any]) -> str:
    """What people waited for, as a table."""
    rows = list(rows_of(figures))
    return table(rows, ("milliseconds", "half of them", "9 of 10", "99 of 100")) if rows else "nobody talked"


def rows_of(figures: dict[str, Any]) -> Iterator[list[Any]]:
    """One row for each part of the way."""
    for part in ("queue", "model", "out"):
        times = [figures[f"{part}_p{share}"] for share in (50, 90, 99)]
        if None not in times:
            yield [part, *(1e3 * seconds for seconds in times)]
