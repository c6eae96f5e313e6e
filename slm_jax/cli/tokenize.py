"""Turn a whole corpus into units or codes, shard by shard, on one machine or many."""

import dataclasses
from pathlib import Path
from typing import Annotated, Any

import tyro

from slm_jax.cli.options import parse_options


@dataclasses.dataclass(frozen=True, kw_only=True)
class TokenizeOptions:
    """The tokens of every recording of a prepared corpus, as tables that a run takes over (`TokenFolderConfig`).

    The same command goes on where it was stopped.
    """

    corpus: Annotated[str, tyro.conf.Positional]
    """Which speech, as `prepare` takes it; it is prepared unless it is there."""
    tokenizer: Annotated[str, tyro.conf.Positional]
    """A run folder with a stage of units or a codec, a codec's folder, or hub:NAME."""
    stage: str | None = None
    """The stage of the run; by default its last one that makes tokens."""
    books: int | None = None
    """Codebooks of a codec that are used."""
    kinds: tuple[str, ...] | None = None
    """Kinds of items; by default those that the corpus gives unasked."""
    data_dir: Path = Path("data")
    """Where prepared corpora are kept."""
    out: str | None = None
    """Where the tokens go, here or gs://BUCKET/FOLDER; by default a folder below DATA_DIR/tokens."""
    per_shard: int = 256
    """Recordings of one shard."""
    workers: int = 0
    """Processes that make them, 0 for one per core; what is made does not depend on it."""
    runner: str = "workers"
    """Who makes them: workers, or Apache Beam by direct (this machine), dataflow, flink, spark."""
    beam: tuple[str, ...] = ()
    """Options of Beam, such as project=NAME region=NAME temp_location=gs://BUCKET/tmp."""
    json: bool = False
    """Print one JSON value instead of text."""


def main(argv: list[str]) -> dict[str, Any]:
    """Make the tokens that are not there; print and return what became of the recordings."""
    from slm_jax.cli.sharding import made
    from slm_jax.data.corpus import parse_corpus, prepare_corpus
    from slm_jax.pipelines.tokens import TokenShardsConfig
    from slm_jax.training.tokenizer_source import TokenizerSourceConfig

    options = parse_options(TokenizeOptions, argv, "tokenize")
    config = parse_corpus(options.corpus)
    prepare_corpus(config, options.data_dir)
    work = TokenShardsConfig(
        corpus=config.replace(processes=0),
        tokenizer=TokenizerSourceConfig(source=options.tokenizer, stage=options.stage, books=options.books),
        kinds=options.kinds,
        data_dir=str(options.data_dir),
        per_shard=options.per_shard,
    )
    return made(work, options, "tokens")
