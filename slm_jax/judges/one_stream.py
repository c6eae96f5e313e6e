"""A language model of text and units in one stream: does it write what it hears, and say what it reads?"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from slm_jax.core.messages import Conversation, Speech, written
from slm_jax.data.examples.speech_tasks import SpeechTaskConfig
from slm_jax.data.mixture import MixtureConfig, PartConfig
from slm_jax.evaluation.answers import score_answers
from slm_jax.evaluation.section import JudgeConfig, JudgeSettings, Lacking, Section, Sound, Table
from slm_jax.judges.answers import with_other_speech
from slm_jax.judges.asking import Item, heard, items_of, replies_to, text_of
from slm_jax.judges.listening import written_down
from slm_jax.judges.tasks import TasksJudge
from slm_jax.judges.transcription import transcription_figures
from slm_jax.serving.one_stream_speech_lm import OneStreamSpeechLM
from slm_jax.training.stages import StageContext

SHOWN = 5
WORDS = (
    "Heard: words that the model writes of held-out speech, against those that were said. Spoken: what Whisper "
    "understands of speech that the model makes of held-out texts, and of the recordings as their units have them. "
    "Answers: whether the word of a right answer is written, and heard in the speech of the reply. Shuffled: the same "
    "against the words of another utterance."
)


class OneStreamJudge(JudgeConfig):
    """Held-out utterances of up to `longest_s` seconds, written down and spoken by the forms `hears` and `speaks`.

    `answers`: a task whose questions are asked, and whose answers are listened to; None: nothing is asked.
    `whisper`: who listens, a folder (a hub's or ours) or `hub:NAME`; without it nothing is listened to, which is said.
    """

    name: str = "one_stream"
    hears: str = "transcribe"
    speaks: str = "speak"
    answers: SpeechTaskConfig | None = None
    whisper: str = "whisper-base"
    language: str = "en"
    longest_s: float = 6.0

    def judge(self, system: OneStreamSpeechLM, context: StageContext, settings: JudgeSettings) -> Section:
        items = items_of(context, None, settings.utterances, self._fits)
        if not items:
            raise Lacking("no held-out utterance has a text")
        said = [item["text"] for item in items]
        clips = [heard(item, context, system.rate_hz) for item in items]
        texts = {"heard": [text_of(one) for one in self._replies(system, clips, self.hears)]}
        sounds = {"spoken": speech_of(self._replies(system, [written(text) for text in said], self.speaks))}
        sounds["units"] = from_units(system, [one[0].speech[0] for one in clips])
        texts |= written_down(sounds, system.rate_hz, self.whisper, self.language, context)
        figures: dict[str, Any] = {
            name: transcription_figures(said, some, self.language) for name, some in texts.items()
        }
        shown = [[items[i]["id"], said[i], *(some[i] for some in texts.values())] for i in range(len(items[:SHOWN]))]
        kept = tuple(
            Sound(f"{self.name}_{name}_{i}", clip, system.rate_hz, f"{name}: {said[i]}")
            for name, some in sounds.items()
            for i, clip in enumerate(some[:3])
            if len(clip)
        )
        tables = [summary(figures), Table(["", "said", *texts], shown)]
        if self.answers is not None:
            figures["answers"] = self.asked(system, self.answers, context, settings.utterances)
            tables.append(Table(list(figures["answers"]), [list(figures["answers"].values())], "Answers"))
        return Section("Text and units", WORDS, {self.name: figures}, tuple(tables), kept)

    def asked(
        self, system: OneStreamSpeechLM, task: SpeechTaskConfig, context: StageContext, count: int
    ) -> dict[str, Any]:
        """In how many replies to held-out questions, and to the same with other speech, the right word is."""
        part = PartConfig(name="answers", weight=1.0, example=task)
        asked = TasksJudge(tasks=MixtureConfig(parts=(part,))).asked(part, context, count, system.rate_hz)
        questions, keys = [one.question for one in asked], [one.key for one in asked]
        found: dict[str, Any] = {"questions": len(asked)}
        for suffix, some in (("", questions), ("_other_speech", with_other_speech(questions))):
            replies = replies_to(system, [one.asked for one in some])
            texts = {"written": [text_of(one) for one in replies]}
            texts |= written_down({"heard": speech_of(replies)}, system.rate_hz, self.whisper, self.language, context)
            for name, said in texts.items():
                found[name + suffix] = score_answers(keys, said, language=self.language).contains
        return found

    def _replies(self, system: OneStreamSpeechLM, asked: Sequence[Conversation], form: str) -> list[Any]:
        return replies_to(system, asked, decoding=system.decoding.replace(form=form))

    def _fits(self, item: Item) -> bool:
        return bool(item["text"].strip()) and item["seconds"] <= self.longest_s


def speech_of(replies: Sequence[Any]) -> list[np.ndarray]:
    """The samples of each reply, none of one without speech."""
    nothing = np.zeros(0, np.float32)
    return [
        np.concatenate([nothing, *(clip.samples for message in one.messages for clip in message.speech)])
        for one in replies
    ]


def from_units(system: OneStreamSpeechLM, clips: Sequence[Speech]) -> list[np.ndarray]:
    """The same clips as the voice of the system says their units."""
    return system.spoken([system.heard(clip) for clip in clips])


def summary(figures: dict[str, Any]) -> Table:
    """Errors of all kinds."""
    rows = [[name, one["wer"], one["cer"], one["shuffled_wer"]] for name, one in figures.items()]
    return Table(["", "WER", "CER", "shuffled"], rows)
