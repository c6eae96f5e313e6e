"""Who speaks texts: the voice of the world in several speakers, or a system of a run that reads and speaks."""

import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from slm_jax.audio.files import resample
from slm_jax.core.config import Config
from slm_jax.core.errors import UserError, require
from slm_jax.core.messages import written
from slm_jax.data.examples.spoken_tasks import SpeakersConfig
from slm_jax.training.run_folder import RunFolder
from slm_jax.training.stages import StageContext, read_run_config


class Said(NamedTuple):
    """What was spoken of a text: samples `[N]` float32, and by whom."""

    samples: np.ndarray
    speaker: str


class VoiceConfig(Config):
    """Who speaks. What is said of a text follows from it, its id, and nothing else."""

    def make(self) -> Any:
        """A function of ids, texts and a rate (Hz): for each text what was said, or a `UserError` that says why not."""
        raise TypeError(f"{type(self).__name__} does not say how it speaks")

    def fingerprint(self) -> Any:
        """What changes when other speech would come."""
        return self.to_json()


class WorldVoiceConfig(VoiceConfig):
    """The voice of the synthetic world; which of its speakers says a text follows from the id."""

    speakers: SpeakersConfig = SpeakersConfig()

    def make(self) -> Any:
        def speak(ids: Sequence[str], texts: Sequence[str], rate_hz: int) -> list[Said | UserError]:
            return [self._one(name, text, rate_hz) for name, text in zip(ids, texts, strict=True)]

        return speak

    def _one(self, name: str, text: str, rate_hz: int) -> Said | UserError:
        number = zlib.crc32(f"{self.speakers.seed}/{name}".encode()) % self.speakers.count
        try:
            return Said(self.speakers.spoken(text, number, rate_hz), f"world-{number}")
        except UserError as error:
            return error


class SystemVoiceConfig(VoiceConfig):
    """The trained system of the run folder `run`, which reads text and writes speech; `seed` is mixed with each id."""

    run: str
    seed: int = 0

    def make(self) -> Any:
        run = RunFolder(self.run)
        config = read_run_config(run)
        system = config.load(StageContext(run, config.corpus, Path("data"), progress=False))
        speaks = "text" in system.reads and "speech" in system.writes
        require(speaks, "voice", self.run, f"its system reads {sorted(system.reads)}, writes {sorted(system.writes)}")

        def speak(ids: Sequence[str], texts: Sequence[str], rate_hz: int) -> list[Said | UserError]:
            numbers = [zlib.crc32(f"{self.seed}/{name}".encode()) for name in ids]
            keys = jnp.stack([jax.random.key(number) for number in numbers])
            replies = system.respond([written(text) for text in texts], system.decoding, keys)
            return [self._told(reply, rate_hz) for reply in replies]

        return speak

    def fingerprint(self) -> Any:
        path = Path(self.run) / "stages"
        return {done.parent.name: done.read_text() for done in sorted(path.glob("*/done.json"))}

    def _told(self, reply: Any, rate_hz: int) -> Said | UserError:
        clips = [clip for message in reply.messages for clip in message.speech]
        samples = [clip.samples if clip.rate_hz == rate_hz else resample(clip.samples, clip.rate_hz, rate_hz)
                   for clip in clips]  # fmt: skip
        found = np.concatenate(samples) if samples else np.zeros(0, np.float32)
        return Said(found, Path(self.run).name) if len(found) else UserError("the system said nothing")
