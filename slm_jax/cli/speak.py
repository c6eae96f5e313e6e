"""Let a voice speak written instructions, shard by shard: a corpus of spoken instructions with their answers."""

import dataclasses
from pathlib import Path
from typing import Annotated, Any

import tyro

from slm_jax.cli.options import parse_options


@dataclasses.dataclass(frozen=True, kw_only=True)
class SpeakOptions:
    """Each text becomes an item of a corpus `tasks:FOLDER`. The same command goes on where it was stopped."""

    texts: Annotated[Path, tyro.conf.Positional]
    """JSON lines: text (or instruction), and if there are any id, answer (or output), split."""
    voice: str = "world"
    """Who speaks: world, or the run folder of a system that reads text and writes speech."""
    speakers: int = 4
    """Speakers of the world's voice."""
    seed: int = 0
    """Other speakers, other draws."""
    rate_hz: int = 16_000
    """Samples per second of what is stored."""
    data_dir: Path = Path("data")
    """Where the default of --out lies."""
    out: str | None = None
    """Where the corpus goes, here or gs://BUCKET/FOLDER; by default a folder below DATA_DIR/spoken."""
    per_shard: int = 256
    """Texts of one shard."""
    workers: int = 0
    """Processes that speak, 0 for one per core; what is said does not depend on it."""
    runner: str = "workers"
    """Who makes the shards: workers, or Apache Beam by direct (this machine), dataflow, flink, spark."""
    beam: tuple[str, ...] = ()
    """Options of Beam, such as project=NAME region=NAME temp_location=gs://BUCKET/tmp."""
    json: bool = False
    """Print one JSON value instead of text."""


def main(argv: list[str]) -> dict[str, Any]:
    """Speak what is not spoken yet; print and return what became of the texts."""
    from slm_jax.cli.sharding import made
    from slm_jax.data.examples.spoken_tasks import SpeakersConfig
    from slm_jax.pipelines.speech import SpokenShardsConfig
    from slm_jax.pipelines.voices import SystemVoiceConfig, VoiceConfig, WorldVoiceConfig

    options = parse_options(SpeakOptions, argv, "speak")
    voice: VoiceConfig = SystemVoiceConfig(run=options.voice, seed=options.seed)
    if options.voice == "world":
        voice = WorldVoiceConfig(speakers=SpeakersConfig(count=options.speakers, seed=options.seed))
    work = SpokenShardsConfig(
        texts=str(options.texts), voice=voice, rate_hz=options.rate_hz, per_shard=options.per_shard
    )
    return made(work, options, "spoken")
