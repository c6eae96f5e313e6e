"""Records of the world: plans (what is said by whom, and how fast), and the speech made from them."""

import functools
import hashlib
import itertools
import json
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from slm_jax.core.config import from_json
from slm_jax.core.errors import UserError
from slm_jax.data.corpora.settings import RATE_HZ, WorldConfig
from slm_jax.data.corpora.splits import split_of
from slm_jax.data.corpora.world_facts import World, make_world
from slm_jax.data.corpora.world_grammar import Utterance, compose, spoken_words
from slm_jax.data.corpora.world_voice import F0_HOP_S, Speaker, Speech, Voice, make_speakers, to_int16

KINDS = {"sentence": "hours", "question_answer": "question_hours", "dialogue": "dialogue_hours"}
"""Kind of record -> the field that says how many hours of it there are."""
PART = 24
"""Records per part."""
PAUSE_S = 0.25
"""Silence between two turns, seconds, on top of that within them."""
TRIES = 400
"""Draws for an utterance that has not been said before; then the world has been exhausted and things repeat."""


class Job(NamedTuple):
    """One part: the settings, as JSON text, and what to say."""

    settings: str
    plans: tuple[dict[str, Any], ...]


def jobs(config: WorldConfig, kind: str) -> Iterator[Job]:
    """Endlessly many parts of one kind."""
    settings = json.dumps(config.to_json(), sort_keys=True)
    endless = plans(config, kind)
    while True:
        yield Job(settings, tuple(itertools.islice(endless, PART)))


def plans(config: WorldConfig, kind: str) -> Iterator[dict[str, Any]]:
    """What to say, endlessly, each text once for as long as the grammar has new ones."""
    rng = np.random.default_rng([config.seed, 3, list(KINDS).index(kind)])
    world, said = make_world(config.seed), {}
    while True:
        utterance = _new_utterance(kind, world, said, rng)
        again = said[utterance.text] = said.get(utterance.text, 0) + 1
        base = f"{kind}-{hashlib.sha256(utterance.text.encode()).hexdigest()[:12]}"
        voices = rng.permutation(config.speakers)[:2].tolist()
        yield {
            "id": base if again == 1 else f"{base}-{again}",
            "base": base,
            "kind": kind,
            "turns": [[voices[voice % len(voices)], text, answer] for voice, text, answer in utterance.turns],
            "speed": round(float(rng.uniform(config.slowest, config.fastest)), 4),
        }


def _new_utterance(kind: str, world: World, said: dict[str, int], rng: np.random.Generator) -> Utterance:
    for _ in range(TRIES):
        utterance = compose(kind, world, rng)
        if utterance.text not in said:
            return utterance
    return utterance


def make_records(job: Job) -> list[dict[str, Any]]:
    """The speech of one part, as records."""
    config = from_json(json.loads(job.settings))
    if not isinstance(config, WorldConfig):
        raise UserError(f"world settings are a {type(config).__name__}: they must be a WorldConfig")
    speakers = make_speakers(config.speakers, config.seed)
    return [make_record(plan, config, speakers) for plan in job.plans]


@functools.cache
def _voice() -> Voice:
    """One voice per process."""
    return Voice()


def make_record(plan: dict[str, Any], config: WorldConfig, speakers: tuple[Speaker, ...]) -> dict[str, Any]:
    """One record: its turns are spoken one by one and joined with pauses."""
    spoken, number = [], int(hashlib.sha256(plan["id"].encode()).hexdigest()[:8], 16)
    for i, (speaker, text, _) in enumerate(plan["turns"]):
        seed = [config.seed, number, i]
        spoken.append(_voice().speak(text, speed=plan["speed"], speaker=speakers[speaker], seed=seed))
    text = " ".join(text for _, text, _ in plan["turns"])
    arrays, starts = join_turns(spoken)
    turns = [
        {
            "speaker": speakers[speaker].name,
            "text": said,
            "answer": answer,
            "start_s": start,
            "end_s": start + len(speech.samples) / RATE_HZ,
        }
        for (speaker, said, answer), start, speech in zip(plan["turns"], starts, spoken, strict=True)
    ]
    question = plan["kind"] == "question_answer"
    return {
        "id": plan["id"],
        "kind": plan["kind"],
        "split": split_of(plan["base"], config),
        "text": text,
        "speaker": turns[0]["speaker"],
        "speed": plan["speed"],
        "seconds": len(arrays["samples"]) / RATE_HZ,
        "words": " ".join(spoken_words(text)),
        "question": plan["turns"][0][1] if question else "",
        "answer": plan["turns"][1][1] if question else "",
        "turns": json.dumps(turns),
        **arrays,
    }


def join_turns(spoken: list[Speech]) -> tuple[dict[str, np.ndarray], list[float]]:
    """Arrays of all turns one after the other, and the second at which each starts.

    A turn starts on the grid of the pitch frames, so that its pitch needs no shift.
    """
    hop = round(F0_HOP_S * RATE_HZ)
    total, starts = 0, []
    for speech in spoken:
        starts.append(total)
        total += -(-(len(speech.samples) + round(PAUSE_S * RATE_HZ)) // hop) * hop
    samples = np.zeros(starts[-1] + len(spoken[-1].samples), np.float32)
    f0 = np.zeros(-(-len(samples) // hop), np.float32)
    for start, speech in zip(starts, spoken, strict=True):
        samples[start : start + len(speech.samples)] = speech.samples
        f0[start // hop : start // hop + len(speech.f0_hz)] = speech.f0_hz[: len(f0) - start // hop]
    starts_s = [start / RATE_HZ for start in starts]
    times = {
        "phone_start_s": [s.phones.start_s for s in spoken],
        "word_start_s": [s.word_start_s for s in spoken],
        "word_end_s": [s.word_end_s for s in spoken],
    }
    shifted = {
        name: np.concatenate([part + np.float32(at) for part, at in zip(parts, starts_s, strict=True)])
        for name, parts in times.items()
    }
    ids = np.concatenate([speech.phones.ids for speech in spoken]).astype(np.int32)
    ends = np.append(shifted["phone_start_s"][1:], np.float32(len(samples) / RATE_HZ))  # a pause belongs to the silence
    return {"samples": to_int16(samples), "phone_ids": ids, "phone_end_s": ends, "f0_hz": f0, **shifted}, starts_s
