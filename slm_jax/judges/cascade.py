"""Three models in a row: each on held-out speech, and what they say together: the words, and whose voice it is."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from slm_jax.core.errors import UserError
from slm_jax.core.messages import spoken
from slm_jax.data.joined import Joined
from slm_jax.data.records import RecordSource
from slm_jax.evaluation.cascade import nats_by_book
from slm_jax.evaluation.language_model import ngram_nats
from slm_jax.evaluation.section import JudgeConfig, JudgeSettings, Lacking, Section, Sound, Table, rows_of
from slm_jax.generation.by_cascade import Written
from slm_jax.judges.asking import replies_to, text_of
from slm_jax.judges.transcription import transcription_figures
from slm_jax.serving.cascade_speech_lm import CascadeSpeechLM
from slm_jax.serving.transcriber import Transcription, load_transcriber
from slm_jax.training.held_out import held_out, waveform
from slm_jax.training.stages import StageContext
from slm_jax.training.token_stage import token_stage

Clips = dict[str, list[np.ndarray]]
"""What is heard, by how it was made."""
SHOWN = 8
"""Transcripts that are kept."""
WORDS = (
    "Nats per entry of each book on held-out speech, the model given all that stands before it, n-grams of that book "
    "alone beside it; other units: codes given the units of another utterance. Then what is heard: recordings, the "
    "same through the codec, with fine codes written anew (detail), and said again of units alone (acoustic)."
)


class CascadeJudge(JudgeConfig):
    """Nats by book, and the words of acoustic generation as `whisper` (a folder or `hub:NAME`) writes them down.

    Where there is no such model, words are left out and it is said so.
    """

    name: str = "cascade"
    whisper: str = "whisper-base"
    language: str = "en"

    def judge(self, system: CascadeSpeechLM, context: StageContext, settings: JudgeSettings) -> Section:
        tables = {split: token_table(system, context, split) for split in ("train", "dev", "test")}
        if not tables["test"]:
            raise Lacking("the corpus has no held-out speech in its test split")
        figures: dict[str, Any] = {"nats": nats_of_passes(system, tables)}
        items = held_out(context, settings.utterances, longer_than_s=1.0)
        clips = said_again(system, [waveform(item, context, system.rate_hz) for item in items])
        sounds = [Sound(f"cascade_{name}", some[0], system.rate_hz, name) for name, some in clips.items()]
        shown = [rows_of(figures["nats"])]
        figures["words"] = self.words(clips, [item["text"] for item in items], system.rate_hz, context.say)
        if figures["words"]:
            shown.append(_told(figures["words"]))
        return Section("Cascade", WORDS, {self.name: figures}, tuple(shown), tuple(sounds))

    def words(
        self, clips: Clips, texts: Sequence[str], rate_hz: int, say: Callable[[str], None]
    ) -> dict[str, Any] | None:
        """Word errors of what is heard, by how it was made; None without somebody who writes it down."""
        try:
            transcriber = load_transcriber(self.whisper, Transcription(language=self.language))
        except UserError as error:
            say(f"words are not counted: {error}")
            return None
        asked = {name: [spoken(one, rate_hz) for one in some] for name, some in clips.items()}
        said = {name: [text_of(reply) for reply in replies_to(transcriber, some)] for name, some in asked.items()}
        return {
            name: {**transcription_figures(texts, some, self.language), "transcripts": some[:SHOWN]}
            for name, some in said.items()
        }


def token_table(system: CascadeSpeechLM, context: StageContext, split: str) -> list[Written]:
    """Units without repetitions and codes of every utterance of a split."""
    places = [(token_stage(context, name), context.finished(name)) for name in system.origin]
    paths = [stage.records(done, split) for stage, done in places]
    if not all(path.is_dir() for path in paths):
        return []
    source, specs = Joined(*map(RecordSource, paths)), (system.cascade.semantic, system.cascade.acoustic)
    names = {book.name: column for spec in specs for book, column in zip(spec.codebooks, spec.columns, strict=True)}
    rows = (source[i] for i in range(len(source)))
    return [system.deduplicated({name: row[column] for name, column in names.items()}) for row in rows]


def nats_of_passes(system: CascadeSpeechLM, tables: dict[str, list[Written]]) -> dict[str, dict[str, float]]:
    """Nats of every book on the test split: the model that writes it beside n-grams of that book alone."""
    found: dict[str, dict[str, float]] = {}
    for number in range(len(system.models)):
        chunks = [chunk for books in tables["test"] for chunk in system.cascade.chunks(number, books)]
        nats = nats_by_book(system.cascade, number, *system.models[number], chunks)
        found |= {name: {"model": value, **ngrams(system, name, tables)} for name, value in nats.items()}
        if system.cascade.units in system.cascade.passes[number].reads:
            told = nats_by_book(system.cascade, number, *system.models[number], misled(system, tables["test"]))
            found |= {name: found[name] | {"other_units": value} for name, value in told.items()}
    return found


def misled(system: CascadeSpeechLM, clips: Sequence[Written]) -> list[Written]:
    """The codes of every clip under the units of the next: a model that reads them finds these codes less likely."""
    units = [books[system.cascade.units] for books in clips]
    return [{**books, system.cascade.units: units[i - len(clips) + 1]} for i, books in enumerate(clips)]


def ngrams(system: CascadeSpeechLM, name: str, tables: dict[str, list[Written]]) -> dict[str, float]:
    """Nats of a book under n-grams of it alone; units with their end, as the model counts them."""
    alone = {split: [books[name] for books in some] for split, some in tables.items()}
    is_unit = name == system.cascade.units
    size = system.cascade.semantic.units if is_unit else system.cascade.sizes_of_codes[name]
    return ngram_nats(alone, size, count_end=is_unit)


def said_again(system: CascadeSpeechLM, originals: Sequence[np.ndarray]) -> Clips:
    """Recordings, the same through the codec, with fine codes written anew, and said again of their units."""
    acoustic = system.decoding.replace(mode="acoustic")
    replies = replies_to(system, [spoken(one, system.rate_hz) for one in originals], decoding=acoustic)
    coded = [system.codec.decode(system.codec.encode(one), len(one)) for one in originals]
    detail, made = (
        [one.messages[0].speech[0].samples for one in some] for some in (system.detailed(originals), replies)
    )
    return {"recorded": list(originals), "codec": coded, "detail": detail, "acoustic": made}


def _told(words: dict[str, Any]) -> Table:
    columns = ("wer", "cer", "shuffled_wer", "empty")
    rows = [[name, *(one[column] for column in columns), one["transcripts"][0]] for name, one in words.items()]
    return Table(["", *columns, "the first transcript"], rows, "Words that Whisper reads")
