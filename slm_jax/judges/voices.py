"""Whose voice goes on? Continuations of held-out openings, held to the voices of a corpus by a speaker encoder."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from slm_jax.audio.files import resample
from slm_jax.core.errors import UserError
from slm_jax.core.messages import spoken
from slm_jax.encoders.speaker import RATE_HZ, SpeakerEmbedder
from slm_jax.evaluation.section import JudgeConfig, JudgeSettings, Lacking, Section, Table
from slm_jax.evaluation.speaker import Identification, identify, similarities, speaker_vectors
from slm_jax.interop.model import load
from slm_jax.judges.asking import replies_to, require_kinds_of_parts
from slm_jax.training.held_out import held_out, speech_of, waveform
from slm_jax.training.stages import StageContext

REST_S = 0.8
"""What must be left of an utterance behind its opening, in seconds."""
LEAST_S = 0.4
"""Sound of which nobody could tell who speaks is left out."""
WORDS = (
    "How often the voice of what is heard lies nearest to that of the opening's speaker among all voices of the corpus "
    "(vectors of a GE2E encoder, chance {chance:.2f}). Other openings: the same continuations, held to the speaker of "
    "another opening. Recorded rests say how well the voices can be told apart at all."
)


class VoicesJudge(JudgeConfig):
    """Is the opening's voice kept? For systems that speak behind a clip.

    `speaker`: a folder with a speaker encoder, or `hub:NAME`. A voice is the mean of up to `enrolled` recordings of the
    train split. `prompt_s`: seconds of an opening, None for the system's own (else 3). Of systems that also speak by
    units alone (`decoding.mode` "acoustic") it is told whose voice that is.
    """

    name: str = "voices"
    speaker: str = "ge2e-speaker"
    enrolled: int = 20
    prompt_s: float | None = None

    def judge(self, system: Any, context: StageContext, settings: JudgeSettings) -> Section:
        require_kinds_of_parts(system, reads=("speech",), writes=("speech",))
        embed = self.embedder()
        names, voices = speaker_vectors(*self.known_voices(embed, context))
        if len(names) < 2:
            raise Lacking(f"the corpus has {len(names)} voices: there is nobody to mistake one for")
        seconds = getattr(system, "prompt_s", 3.0) if self.prompt_s is None else self.prompt_s
        items = held_out(context, settings.utterances, longer_than_s=seconds + REST_S)
        items = [item for item in items if item["speaker"] in names]
        originals, cut = [waveform(item, context, system.rate_hz) for item in items], round(seconds * system.rate_hz)
        clips = {"recorded rest": [one[cut:] for one in originals], **spoken_on(system, originals, cut)}
        right = [names.index(item["speaker"]) for item in items]
        found = {name: told_apart(embed, some, right, voices, system.rate_hz) for name, some in clips.items()}
        other = [right[place - 1] for place in range(len(right))]
        found["other openings"] = told_apart(embed, clips["continuation"], other, voices, system.rate_hz)
        figures = {name: None if one is None else one.to_json() for name, one in found.items()}
        return Section("Voices", WORDS.format(chance=1 / len(names)), {self.name: figures}, (_table(found),))

    def embedder(self) -> SpeakerEmbedder:
        """The encoder; raises `Lacking` where there is none."""
        try:
            return SpeakerEmbedder(*load(self.speaker))
        except UserError as error:
            raise Lacking(f"the speaker encoder cannot be read: {error}") from error

    def known_voices(self, embed: SpeakerEmbedder, context: StageContext) -> tuple[np.ndarray, list[str]]:
        """Vectors of recordings of the train split, and who speaks in each."""
        source, counts = speech_of(context, "train"), dict[str, int]()
        clips, speakers = [], []
        for i in range(len(source)):
            item = source[i]
            if counts.get(item["speaker"], 0) < self.enrolled:
                counts[item["speaker"]] = counts.get(item["speaker"], 0) + 1
                clips.append(waveform(item, context, RATE_HZ))
                speakers.append(item["speaker"])
        return embed(clips), speakers


def spoken_on(system: Any, originals: Sequence[np.ndarray], cut: int) -> dict[str, list[np.ndarray]]:
    """What the system says behind each opening and, where it can, of the units of the whole."""
    alone = {"with_prompt": False} if hasattr(system.decoding, "with_prompt") else {}
    found = {"continuation": _said(system, [one[:cut] for one in originals], alone)}
    if hasattr(system.decoding, "mode"):
        found["from units alone"] = _said(system, originals, {"mode": "acoustic"})
    return found


def told_apart(
    embed: SpeakerEmbedder, clips: Sequence[np.ndarray], right: Sequence[int], voices: np.ndarray, rate_hz: int
) -> Identification | None:
    """Whose voices these are, of the clips that are long enough; None without any."""
    kept = [place for place, clip in enumerate(clips) if len(clip) >= LEAST_S * rate_hz]
    if not kept:
        return None
    vectors = embed([resample(clips[place], rate_hz, RATE_HZ) for place in kept])
    return identify(similarities(vectors, voices), [right[place] for place in kept])


def _said(system: Any, clips: Sequence[np.ndarray], changes: dict[str, Any]) -> list[np.ndarray]:
    asked = [spoken(clip, system.rate_hz) for clip in clips]
    replies = replies_to(system, asked, decoding=system.decoding.replace(**changes))
    return [reply.messages[0].speech[0].samples for reply in replies]


def _table(found: dict[str, Identification | None]) -> Table:
    rows = []
    for name, one in found.items():
        if one is not None:
            low, high = one.interval or (float("nan"), float("nan"))
            rows.append([name, f"{one.accuracy:.3f} [{low:.2f}, {high:.2f}]", one.own, one.best_other, one.clips])
    return Table(["", "right voice nearest", "cosine to it", "to the nearest other", "clips"], rows)
