"""The judge of voices: a parrot keeps the voice, somebody who always speaks alike is right by chance."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from slm_jax.core.config import Config
from slm_jax.core.contracts import Reply
from slm_jax.core.messages import Message, Speech
from slm_jax.core.types import Frames
from slm_jax.encoders.speaker import SpeakerEncoderConfig
from slm_jax.evaluation.section import JudgeSettings, Lacking
from slm_jax.interop.model import export
from slm_jax.judges.voices import VoicesJudge
from tests.contracts.checks import random_params
from tests.training.small_answers import Context, context_of

TINY = SpeakerEncoderConfig(mels=8, width=16, layers=1, embedding=16, frames=20, stretches_per_s=10.0)
RATE, PITCHES = 16_000, {"low": 300, "high": 3000}
SETTINGS = JudgeSettings(utterances=8)


def voice(speaker, seed):
    """1.5 s of a tone under a little noise."""
    time, rng = np.arange(24_000) / RATE, np.random.default_rng(seed)
    return (8000 * np.sin(2 * np.pi * PITCHES[speaker] * time) + 200 * rng.standard_normal(24_000)).astype(np.int16)


class Talking(Context):
    """Two speakers in turn."""

    names = tuple(PITCHES)

    def source(self, split, kinds=None):
        said = [self.names[i % len(self.names)] for i in range(8)]
        rest = {"text": "", "kind": ""}
        return [{"id": str(i), "samples": voice(s, i), "speaker": s, **rest} for i, s in enumerate(said)]


class Alone(Talking):
    names = ("low",)


class Manner(Config):
    mode: str = "continuation"
    with_prompt: bool = True


@dataclasses.dataclass
class Speaker:
    """Says its clip again, or always the same; by units alone always the same."""

    always: np.ndarray | None = None
    reads: frozenset = frozenset({"speech"})
    writes: frozenset = frozenset({"speech"})
    rate_hz: int = RATE
    prompt_s: float = 0.5
    decoding: Any = dataclasses.field(default_factory=Manner)

    def respond(self, conversations, decoding, key):
        one = self.always if self.always is not None else (LOW if decoding.mode == "acoustic" else None)
        clips = [c[0].speech[0].samples if one is None else one for c in conversations]
        return [Reply((Message("assistant", (Speech(clip, RATE),)),), {}) for clip in clips]


LOW = voice("low", 99).astype(np.float32) / 32_768


@pytest.fixture(scope="module")
def judge(tmp_path_factory):
    folder = tmp_path_factory.mktemp("speaker") / "encoder"
    frames = Frames(jnp.zeros((1, 1, 8)), jnp.ones((1, 1), bool))
    export(TINY, jax.device_get(random_params(TINY.make(), jax.random.key(0), frames)), folder)
    return VoicesJudge(speaker=str(folder))


def test_a_parrot_keeps_the_voice_and_who_speaks_alike_is_right_by_chance(judge, tmp_path):
    context = context_of(tmp_path, kind=Talking)
    kept = judge.judge(Speaker(), context, SETTINGS).figures["voices"]
    right = {name: one["accuracy"] for name, one in kept.items()}
    assert right == {"recorded rest": 1, "continuation": 1, "from units alone": 0.5, "other openings": 0}
    assert kept["continuation"]["clips"] == 8 and kept["continuation"]["candidates"] == 2
    alike = judge.judge(Speaker(always=LOW), context, SETTINGS).figures["voices"]
    assert alike["continuation"]["accuracy"] == alike["other openings"]["accuracy"] == 0.5


def test_silence_of_no_length_has_no_voice(judge, tmp_path):
    section = judge.judge(Speaker(always=LOW[:100]), context_of(tmp_path, kind=Talking), SETTINGS)
    assert section.figures["voices"]["continuation"] is None and len(section.tables[0].rows) == 1


def test_what_is_lacking(judge, tmp_path):
    with pytest.raises(Lacking, match="the corpus has 1 voices"):
        judge.judge(Speaker(), context_of(tmp_path, kind=Alone), SETTINGS)
    with pytest.raises(Lacking, match="the speaker encoder cannot be read"):
        VoicesJudge(speaker=str(tmp_path / "none")).judge(Speaker(), context_of(tmp_path, kind=Talking), SETTINGS)
