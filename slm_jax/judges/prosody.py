"""Durations and pitch that a language model writes: likely on held-out speech, and going on as the prompt began?"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Float

from slm_jax.data.records import RecordSource
from slm_jax.evaluation.language_model import ngram_nats
from slm_jax.evaluation.prosody import Correlation, Runs, correlation, least_error, style_of
from slm_jax.evaluation.section import JudgeConfig, JudgeSettings, Lacking, Section, Sound, Table, rows_of
from slm_jax.serving.prosodic_speech_lm import Entries, ProsodicSpeechLM
from slm_jax.training.held_out import openings
from slm_jax.training.pre.streams_stage import names_of
from slm_jax.training.stages import StageContext
from slm_jax.training.token_stage import token_stage

REST_RUNS = 8
"""What must be left of an utterance after its opening."""
WORDS = (
    "Nats per entry on held-out speech, each stream given all that stands before it. Then prompts that are gone on "
    "with: correlation over utterances of their pitch, its spread and their tempo with those of what follows, beside "
    "the prompts of others and the real rest."
)


class Opened(NamedTuple):
    """A held-out utterance cut in two."""

    prompt: Entries
    rest: Entries


class ProsodyJudge(JudgeConfig):
    """Streams beside the units: nats, and whether continuations keep the manner of their prompts.

    `samples` continuations of each prompt. Prompts are normalised by what is known of their speaker.
    """

    name: str = "prosody"
    samples: int = 4

    def judge(self, system: ProsodicSpeechLM, context: StageContext, settings: JudgeSettings) -> Section:
        tables = entry_tables(system, context)
        if not tables["test"]:
            raise Lacking("the corpus has no held-out speech in its test split")
        names = names_of(system.tokenizer.spec)
        nats = stream_nats(system, tables, names)
        opened = cut_in_two(system, tables["test"], settings.utterances)
        if len(opened) < 3:
            raise Lacking(f"{len(opened)} held-out utterances are longer than their opening and a little: 3 are needed")
        kept = manner_kept(system, opened, self.samples, usual_frames(system, tables["train"]))
        heard = openings(context, 1, system.prompt_s)
        (reply,) = system.respond(list(heard.values()), None, jax.random.key(1))
        sound = Sound("prosody", reply.messages[0].speech[0].samples, system.rate_hz, "A prompt and its continuation")
        return Section(
            "Durations and pitch", WORDS, {self.name: {"nats": nats, **kept}}, (rows_of(nats), told(kept)), (sound,)
        )


def entry_tables(system: ProsodicSpeechLM, context: StageContext) -> dict[str, list[Entries]]:
    """Entries of every utterance, by split."""
    stage = token_stage(context, system.origin.units)
    found: dict[str, list[Entries]] = {}
    for split in ("train", "dev", "test"):
        path = stage.records(context.finished(system.origin.units), split)
        source = RecordSource(path) if path.is_dir() else ()
        found[split] = [system.rows.entries(source[i]) for i in range(len(source))]
    return found


def stream_nats(
    system: ProsodicSpeechLM, tables: dict[str, list[Entries]], names: Sequence[str]
) -> dict[str, dict[str, float]]:
    """Nats of every stream on the test split: the model beside n-grams of that stream alone."""
    scores = np.concatenate(system.log_probs(tables["test"]))
    filled = np.concatenate([system.rows.sequence(one)[1:] >= 0 for one in tables["test"]])
    found = {}
    for stream, name in enumerate(names):
        alone = {split: [one[:, stream] for one in rows] for split, rows in tables.items()}
        size = system.lm.config.streams[stream]
        model = float(-scores[:, stream][filled[:, stream]].mean())
        found[name] = {"model": model, **ngram_nats(alone, size)}
    return found


def cut_in_two(system: ProsodicSpeechLM, utterances: Sequence[Entries], count: int) -> list[Opened]:
    """The first `count` utterances that have enough left behind their opening."""
    frames = round(system.prompt_s * system.tokenizer.spec.frames_per_second)
    found: list[Opened] = []
    for one in utterances:
        cut = int(np.searchsorted(np.cumsum(system.frames(one)), frames))
        if 0 < cut <= len(one) - REST_RUNS and len(found) < count:
            found.append(Opened(one[:cut], one[cut:]))
    return found


def usual_frames(system: ProsodicSpeechLM, utterances: Sequence[Entries]) -> Float[np.ndarray, "U"]:
    """How long each unit lasts in the mean, in frames; 1 for one that never came."""
    entries = np.concatenate(utterances)
    counts = np.bincount(entries[:, 0], minlength=system.rows.units)
    frames = np.bincount(entries[:, 0], weights=system.frames(entries), minlength=system.rows.units)
    return np.where(counts > 0, frames / np.maximum(counts, 1), 1.0)


def manner_kept(
    system: ProsodicSpeechLM, opened: Sequence[Opened], samples: int, usual: Float[np.ndarray, "U"]
) -> dict[str, Any]:
    """Correlations by name and by what the prompt is held to; errors and spread of the pitch of continuations."""
    prompts = [one.prompt for one in opened for _ in range(samples)]
    made = system.continuations(prompts, jax.random.key(0), system.decoding.sampling)
    runs = [runs_of(system, one, usual) for one in made]
    groups = [runs[i : i + samples] for i in range(0, len(runs), samples)]
    begun, rests = ([runs_of(system, one, usual) for one in column] for column in zip(*opened, strict=True))
    asked = np.array([style_of(one) for one in begun])
    answered = np.array([_mean_style(group) for group in groups])
    real = np.array([style_of(one) for one in rests])
    found: dict[str, Any] = {}
    for column, name in enumerate(("pitch", "spread", "tempo")):
        held = {"continuation": answered, "other prompts": np.roll(answered, 1, axis=0), "real rest": real}
        found[name] = {to: _figures(correlation(asked[:, column], theirs[:, column])) for to, theirs in held.items()}
    errors = [least_error(group, rest) for group, rest in zip(groups, rests, strict=True)]
    found["least_pitch_error"] = float(np.nanmean(errors))
    found["pitch_std"] = float(np.nanmean([style_of(one).spread for group in groups for one in group]))
    found["real_pitch_std"] = float(np.nanmean([style_of(one).spread for one in rests]))
    found["empty"] = sum(len(one.frames) == 0 for group in groups for one in group)
    return found


def runs_of(system: ProsodicSpeechLM, entries: Entries, usual: Float[np.ndarray, "U"]) -> Runs:
    """Frames and pitch of runs."""
    return Runs(system.frames(entries), system.log_f0(entries), usual[entries[:, 0]])


def told(kept: dict[str, Any]) -> Table:
    """Correlations as a table."""
    header = ["", *next(iter(kept.values()))]
    rows = [[name, *(_told(one) for one in kept[name].values())] for name in ("pitch", "spread", "tempo")]
    return Table(header, rows, "Correlation with the prompt")


def _told(one: dict[str, Any]) -> str:
    if one["correlation"] is None or one["interval"] is None:
        return "–"
    low, high = one["interval"]
    return f"{one['correlation']:.2f} [{low:.2f}, {high:.2f}]"


def _figures(found: Correlation) -> dict[str, Any]:
    return {"correlation": found.value, "interval": found.interval, "items": found.items}


def _mean_style(group: Sequence[Runs]) -> list[float]:
    styles = np.array([style_of(one) for one in group])
    known = ~np.isnan(styles)
    counts = known.sum(0)
    return list(np.where(counts > 0, np.where(known, styles, 0.0).sum(0) / np.maximum(counts, 1), np.nan))
