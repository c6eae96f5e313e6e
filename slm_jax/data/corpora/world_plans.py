"""Plans of the world's records: what is said by whom, and in which manner. A plan is JSON; its speech comes later."""

import hashlib
import itertools
import json
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from slm_jax.data.corpora.settings import WorldConfig
from slm_jax.data.corpora.splits import dealt_out, split_key, split_of
from slm_jax.data.corpora.world_facts import World, make_world
from slm_jax.data.corpora.world_grammar import Utterance, compose
from slm_jax.data.corpora.world_manner import gaps, remarks, styles
from slm_jax.data.corpora.world_voice import Speaker, make_speakers

KINDS = {
    "sentence": "hours",
    "question_answer": "question_hours",
    "dialogue": "dialogue_hours",
    "instruction": "instruction_hours",
}
"""Kind of record -> the field that says how many hours of it there are."""
PART = 24
"""Records per part."""
TRIES = 400
"""Draws for an utterance that has not been said before; then the world has been exhausted and things repeat."""
HEARD = ("sentence", "sentence", "question", "dialogue")
"""What an instruction is about, each as likely; without a second speaker no dialogues."""


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
    world, speakers = make_world(config.seed), make_speakers(config.speakers, config.seed)
    said: dict[str, int] = {}
    splits = dealt_out([speaker.name for speaker in speakers], config)
    while True:
        utterance = _new_utterance(kind, config, world, said, rng)
        again = said[utterance.text] = said.get(utterance.text, 0) + 1
        base = base_id(kind, utterance.text)
        voices = _voices(rng.permutation(config.speakers).tolist(), utterance, config, speakers, splits)
        plan = {
            "id": base if again == 1 else f"{base}-{again}",
            "kind": kind,
            "heard": utterance.kind,
            **_split(base, utterance, speakers[voices[0]], config, splits),
            "turns": [[voice, voices[voice % len(voices)], text, answer] for voice, text, answer in utterance.turns],
            "speed": round(float(rng.uniform(config.slowest, config.fastest)), 4),
        }
        yield plan | _manner(plan, config)


def base_id(kind: str, text: str) -> str:
    """The id of the first record that says `text`; where this decides the split, later ones go with it."""
    return f"{kind}-{hashlib.sha256(text.encode()).hexdigest()[:12]}"


def number_of(id: str) -> int:
    """A number that stands for an id in the seeds of what is drawn for it."""
    return int(hashlib.sha256(id.encode()).hexdigest()[:8], 16)


def _new_utterance(
    kind: str, config: WorldConfig, world: World, said: dict[str, int], rng: np.random.Generator
) -> Utterance:
    for _ in range(TRIES):
        heard = kind
        if kind == "instruction":
            heard = HEARD[int(rng.integers(len(HEARD) - (not _can_talk(config))))]
        utterance = compose(heard, world, rng)
        if utterance.text not in said:
            return utterance
    return utterance


def _can_talk(config: WorldConfig) -> bool:
    """Are there two who may be heard together?"""
    return config.speakers >= (4 if config.split_by == "speaker" else 2)


def _voices(
    order: list[int],
    utterance: Utterance,
    config: WorldConfig,
    speakers: tuple[Speaker, ...],
    splits: dict[str, str],
) -> list[int]:
    """The speakers of an utterance, two where there are two: the first of an order that is drawn for it.

    Split by speaker, the second is of the split of the first, so that nobody is heard in two; a dialogue begins with
    one who has somebody to talk to.
    """
    if config.split_by != "speaker":
        return order[:2]
    for first in order:
        same = [other for other in order if splits[speakers[other].name] == splits[speakers[first].name]]
        pair = [first, *(other for other in same if other != first)][:2]
        if len(pair) == 2 or utterance.kind != "dialogue":
            return pair
    raise AssertionError("four speakers in three splits: two share one")


def _split(
    base: str, utterance: Utterance, first: Speaker, config: WorldConfig, splits: dict[str, str]
) -> dict[str, str]:
    """The split of a record, and the group of those that are in one split with it; none where speakers are dealt out.

    The text of a question with its answer is the question, which others may ask alone.
    """
    if config.split_by == "speaker":
        return {"split": splits[first.name], "group": ""}
    texts = [text for _, text, _ in utterance.turns]
    text = texts[0] if utterance.kind == "question_answer" else " ".join(texts)
    return {"split": split_of(base, config, text=text), "group": split_key(base, config, text=text)}


def _manner(plan: dict[str, Any], config: WorldConfig) -> dict[str, Any]:
    """How it is said, drawn for the id alone, so that no setting of one manner moves what is said."""
    rng = np.random.default_rng([config.seed, 4, number_of(plan["id"])])
    lively = plan["heard"] == "dialogue"
    turns = len(plan["turns"])
    return {
        "gaps": gaps(turns - 1, config, rng, lively=lively),
        "remarks": remarks(plan["turns"], config, rng) if lively else [],
        "styles": styles(turns, config, rng),
    }
