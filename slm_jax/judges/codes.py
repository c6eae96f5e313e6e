"""A language model of codes under its scheme: likelihood by book, what it makes, and how long one waits for it."""

from functools import partial
from typing import Any

import jax
import numpy as np

from slm_jax.core.messages import spoken
from slm_jax.data.records import RecordSource
from slm_jax.evaluation.codes import books_agreement, code_log_probs
from slm_jax.evaluation.language_model import ngram_nats
from slm_jax.evaluation.section import JudgeConfig, JudgeSettings, Lacking, Section, Sound, Table
from slm_jax.judges.asking import replies_to
from slm_jax.judges.latency import timed
from slm_jax.serving.code_speech_lm import CodeSpeechLM, Ids
from slm_jax.training.held_out import held_out, waveform
from slm_jax.training.stages import StageContext
from slm_jax.training.token_stage import token_stage

REST_S = 0.5
"""What must be left of an utterance after its opening."""
WORDS = (
    "Nats per code of held-out speech, the model given all that its scheme has before it; n-grams of that book alone "
    "beside it. Agreement: nats by which a code tells the next book's of its frame, by counts of the training split, "
    "in what was recorded and in what the model made; 0 where books are drawn apart. Latency: frames that must have "
    "begun beyond a frame before all its codes are there."
)


class CodesJudge(JudgeConfig):
    """Continues the openings of held-out utterances and scores stretches as long as that."""

    name: str = "codes"

    def judge(self, system: CodeSpeechLM, context: StageContext, settings: JudgeSettings) -> Section:
        tables = {split: code_table(system, context, split) for split in ("train", "dev", "test")}
        items = held_out(context, settings.utterances, longer_than_s=system.prompt_s + REST_S)
        if not tables["test"] or not items:
            raise Lacking("the corpus has no held-out speech that is longer than an opening")
        cut = round(system.prompt_s * system.rate_hz)
        asked = [spoken(waveform(item, context, system.rate_hz)[:cut], system.rate_hz) for item in items]
        replies = replies_to(system, asked)
        new = np.concatenate([reply.trace["codes"][reply.trace["prompt_frames"] :] for reply in replies])
        known = np.concatenate(tables["train"])
        agreement = partial(books_agreement, known=known, sizes=system.codec.spec.sizes)
        figures: dict[str, Any] = {
            "nats": nats_by_book(system, tables),
            "agreement": {"recorded": agreement(np.concatenate(tables["test"])), "made": agreement(new)},
            "scheme": scheme_figures(system),
            "seconds_per_second": waiting(system, asked[0]),
        }
        clips = [reply.messages[0].speech[0] for reply in replies]
        heard = [Sound(f"codes_{i}", one.samples, one.rate_hz, f"Continuation {i}") for i, one in enumerate(clips[:3])]
        return Section("Codes", WORDS, {self.name: figures}, shown(figures), tuple(heard))


def code_table(system: CodeSpeechLM, context: StageContext, split: str) -> list[Ids]:
    """The codes of every utterance of a split; none where the run has no such split."""
    path = token_stage(context, system.origin).records(context.finished(system.origin), split)
    source = RecordSource(path) if path.is_dir() else ()
    return [system.rows.codes(source[i]) for i in range(len(source))]


def nats_by_book(system: CodeSpeechLM, tables: dict[str, list[Ids]]) -> dict[str, dict[str, float]]:
    """Nats per code of each book, and of all, on the test split: the model, n-grams of that book alone."""
    spec = system.codec.spec
    frames = round((system.prompt_s + system.decoding.seconds) * spec.frames_per_second)
    clips = [codes[:frames] for codes in tables["test"]]
    sequences = [system.rows.sequence(codes) for codes in clips]
    steps = max(map(len, sequences))
    scores = np.concatenate(code_log_probs(system.lm, system.lm_params, sequences, steps))
    real = np.concatenate([sequence[1:] >= 0 for sequence in sequences])
    found = {}
    for book, size in enumerate(spec.sizes):
        alone = {split: [codes[:, book] for codes in some] for split, some in (tables | {"test": clips}).items()}
        nats = float(-scores[:, book].sum() / real[:, book].sum())
        found[f"codes_{book}"] = {"model": nats, **ngram_nats(alone, size)}
    every = {name: float(np.mean([one[name] for one in found.values()])) for name in ("model", "unigram", "bigram")}
    return {"all": every, **found}


def scheme_figures(system: CodeSpeechLM) -> dict[str, float]:
    """Steps of the large model for a second of speech, and latency in frames, by the scheme's table alone."""
    spec = system.codec.spec
    frames, books = round(system.decoding.seconds * spec.frames_per_second), len(spec.sizes)
    steps = len(system.scheme.table(frames, books)) * spec.frames_per_second / frames
    return {"steps_per_second": steps, "latency_frames": system.scheme.latency(frames, books)}


def waiting(system: CodeSpeechLM, asked: Any) -> float:
    """Seconds that a second of new speech takes, one conversation at a time, after a call that warms."""
    answer = partial(system.respond, [asked], None, jax.random.key(0))
    timed(answer)
    return timed(answer)[0] / system.decoding.seconds


def shown(figures: dict[str, Any]) -> tuple[Table, ...]:
    """Nats by book, then the rest."""
    columns = ("model", "bigram", "unigram")
    nats = [[name, *(row[column] for column in columns)] for name, row in figures["nats"].items()]
    rest = {**figures["scheme"], "seconds per second": figures["seconds_per_second"]}
    rest |= {f"agreement, {name}": value for name, value in figures["agreement"].items()}
    return Table(["book", *columns], nats), Table(["", ""], [list(row) for row in rest.items()])
