"""Make a corpus ready for training, with an account of every item that was left out."""

import dataclasses
from pathlib import Path
from typing import Annotated, Any

import tyro

from slm_jax.cli.options import parse_options


@dataclasses.dataclass(frozen=True, kw_only=True)
class PrepareOptions:
    """Prepare a corpus: world, world:hours=1,speakers=4, manifest:PATH, folder:PATH or tfds:NAME."""

    corpus: Annotated[str, tyro.conf.Positional]
    """Which speech."""
    data_dir: Path = Path("data")
    """Where prepared corpora are kept."""
    json: bool = False
    """Print one JSON value instead of text."""


def main(argv: list[str]) -> dict[str, Any]:
    """Prepare the corpus unless it is there; print and return the report."""
    from slm_jax.data.corpus import parse_corpus, prepare_corpus

    options = parse_options(PrepareOptions, argv, "prepare")
    report = prepare_corpus(parse_corpus(options.corpus), options.data_dir)
    print(report.to_text())
    return report.to_json()
