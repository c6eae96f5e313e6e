"""A language model of text and codes: does it write what it hears, and say what it reads?"""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from slm_jax.data.word_times import words_of
from slm_jax.evaluation.section import JudgeConfig, JudgeSettings, Lacking, Section, Sound, Table
from slm_jax.judges.asking import Item, heard, items_of, replies_to, text_of
from slm_jax.judges.listening import written_down
from slm_jax.judges.transcription import transcription_figures
from slm_jax.layouts.beside import Beside
from slm_jax.serving.text_code_speech_lm import TextCodeSpeechLM
from slm_jax.training.stages import StageContext

SHOWN = 5
WORDS = (
    "Heard: words that the model writes while it hears held-out speech, against those that were said. Spoken: what "
    "Whisper understands of speech that the model makes of held-out texts, and of the recordings as the codec has "
    "them. Shuffled: the same against the words of another utterance. Late: frames that must have begun beyond a frame "
    "before its codes are there, and by which text comes behind the speech that it belongs to."
)


class TextCodesJudge(JudgeConfig):
    """Held-out utterances of up to `longest_s` seconds, written down and spoken by the system.

    `whisper`: who listens, a folder (a hub's or ours) or `hub:NAME`; `language`: whose spelling is normalised.
    """

    name: str = "text_codes"
    whisper: str = "whisper-base"
    language: str = "en"
    longest_s: float = 6.0

    def judge(self, system: TextCodeSpeechLM, context: StageContext, settings: JudgeSettings) -> Section:
        items = items_of(context, None, settings.utterances, self._fits)
        if not items:
            raise Lacking("no held-out utterance has words whose times are known")
        said = [" ".join(words.words) for item in items if (words := words_of(item)) is not None]
        figures: dict[str, Any] = {"late": late(system)}
        texts: dict[str, list[str]] = {"said": said}
        if isinstance(system.rows.layout, Beside):
            texts["heard"] = written(system, items, context)
        sounds = spoken(system, items, context)
        texts |= written_down(sounds, system.rate_hz, self.whisper, self.language, context)
        figures |= {
            name: transcription_figures(said, some, self.language) for name, some in texts.items() if name != "said"
        }
        shown = [[item["id"], *(some[i] for some in texts.values())] for i, item in enumerate(items[:SHOWN])]
        clips = tuple(
            Sound(f"{self.name}_{name}_{i}", clip, system.rate_hz, f"{name}: {said[i]}")
            for name, some in sounds.items()
            for i, clip in enumerate(some[:3])
        )
        tables = (summary(figures), Table(["", *texts], shown))
        return Section("Text and codes", WORDS, {self.name: figures}, tables, clips)

    def _fits(self, item: Item) -> bool:
        words = words_of(item)
        return words is not None and len(words.words) > 0 and item["seconds"] <= self.longest_s


def written(system: TextCodeSpeechLM, items: Sequence[Item], context: StageContext) -> list[str]:
    """What it writes of each, and no further."""
    asked = [heard(item, context, system.rate_hz) for item in items]
    return [text_of(reply) for reply in replies_to(system, asked, decoding=system.decoding.replace(seconds=0.0))]


def spoken(system: TextCodeSpeechLM, items: Sequence[Item], context: StageContext) -> dict[str, list[np.ndarray]]:
    """Speech of each text by the system, and what the codec makes of the recording."""
    clips = [heard(item, context, system.rate_hz)[0].speech[0].samples for item in items]
    codes = system.codec.encode_rows(clips)
    frames = [len(one) for one in codes]
    made = system.spoken([system.rows.said(item) for item in items], frames, system.decoding, jax.random.key(0))
    return {
        "spoken": [system.codec.decode(one) for one in made],
        "codec": [system.codec.decode(one) for one in codes],
    }


def late(system: TextCodeSpeechLM) -> dict[str, int]:
    """Frames by which codes and text come after what they belong to."""
    rows, frames = system.rows, 100
    ahead = rows.layout.ahead if isinstance(rows.layout, Beside) else 0
    return {"codes": rows.scheme.latency(frames, len(rows.columns)) + max(0, ahead), "text": max(0, -ahead)}


def summary(figures: dict[str, Any]) -> Table:
    """Errors of all kinds."""
    rows = [[name, one["wer"], one["cer"], one["shuffled_wer"]] for name, one in figures.items() if name != "late"]
    return Table(["", "WER", "CER", "shuffled"], rows)
