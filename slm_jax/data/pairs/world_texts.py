"""What the world's pairs say: words and what is none, sentences and what is none, stories with another ending."""

import functools
from collections import Counter
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from slm_jax.data.corpora import world_facts
from slm_jax.data.corpora.world_facts import World
from slm_jax.data.corpora.world_grammar import derive, draw_keys, say, topic
from slm_jax.data.corpora.world_phones import LENGTH, PAUSES, STRESS
from slm_jax.data.corpora.world_voice import the_voice

VOWELS, CONSONANTS = frozenset("AIOWYæɑɔɛɪʊʌiu"), frozenset("bdfhjklmnpstvwzðŋɡɹʃʒʤʧθ")
"""A phone is swapped for one of its own kind; reduced vowels stay."""
ALIKE = str.maketrans({**dict.fromkeys(STRESS + LENGTH + PAUSES), "T": "t", "ɾ": "t", "ᵊ": "ə", "ᵻ": "ɪ"})
"""What makes no other word: stress, length, punctuation, flaps, grades of reduced vowels."""
EDGE = "#"
COMMON = 5
"""Any three neighbouring phones of a non-word, its edges counted as phones, stand side by side in so many words."""
SHORTEST = 4
"""Phones of a word; of shorter ones most neighbours are words."""
TABLES = (
    *("PEOPLE", "CITIES", "JOBS", "COLOURS", "PETS", "FOODS", "THINGS", "SPORTS", "PLACES", "DAYS", "NUMBERS"),
    *("ADJECTIVES", "OBJECTS", "RELATIVES", "VERBS_WITH_OBJECT", "WEATHER", "SEASONS"),
)
STORIES = (
    ("{p} lives in {home} and works as a {job}.", "{p} is a {job} and lives in {home}.", "job", "JOBS"),
    ("{p} is a {job} and lives in {home}.", "{p} lives in {home} and works as a {job}.", "home", "CITIES"),
    ("{p} likes {food}, but {q} likes {q_food}.", "{p} eats {food} with {q} every {day}.", "food", "FOODS"),
    ("{p} has {pets} {pet_plural} and a {thing_colour} {thing}.", "The {pet} of {p} is very {state}.", "pet", "PETS"),
    (
        "{p} has {pets} {pet_plural} and a {thing_colour} {thing}.",
        "{q} saw the {thing_colour} {thing} of {p} near the {place}.",
        *("thing_colour", "COLOURS"),
    ),
    (
        "Every {day}, {p} plays {sport} in the {place}.",
        "{p} and the {relative} of {q} play {sport} on {d}.",
        *("sport", "SPORTS"),
    ),
)
"""Opening, ending that holds after it, and the slot of the ending whose other words contradict it, with their table.

All are sentences of the corpus, which says them one at a time.
"""


class Lexicon(NamedTuple):
    """How words of the voice's dictionary and of the world are said; how often three phones are neighbours there."""

    known: frozenset[str]
    neighbours: Counter[tuple[str, ...]]


class Story(NamedTuple):
    """An opening, the ending that holds, and one that does not."""

    opening: str
    right: str
    wrong: str


def words() -> tuple[str, ...]:
    """All words of the world's tables, each once."""
    return tuple(dict.fromkeys(word for name in TABLES for word in getattr(world_facts, name)))


def phones_of(symbols: str) -> str:
    """The phones of a word, by which it is told from others."""
    return symbols.translate(ALIKE)


@functools.cache
def lexicon() -> Lexicon:
    """The voice's dictionary, and the world's words where it lacks them."""
    voice = the_voice()
    said = (*voice.pronunciations(), *(voice.symbols(f"{word}.") for word in words()))
    known = frozenset(phones_of("\n".join(said)).split("\n"))  # all at once: there are some 180,000
    return Lexicon(known, Counter(_neighbours(EDGE.join(sorted(known)))))


def nonwords(symbols: str) -> list[str]:
    """The symbols of a word with one phone swapped for another of its kind, in all ways that make no word.

    None is in the `lexicon`, and all neighbours in them are common in it.
    """
    table = lexicon()
    return [other for other in _swaps(symbols) if _could_be(phones_of(other), table)]


def swaps_of_words(text: str, symbols: str) -> list[tuple[str, str]]:
    """(text, symbols) of a sentence with two neighbouring words swapped, in all ways that the grammar does not know.

    Words beside punctuation stay, and so the phones are the same ones.
    """
    spoken, said = text.split(), symbols.split(" ")
    found = []
    for i in range(len(said) - 1):
        if said[i] == said[i + 1] or any(mark in said[i] + said[i + 1] for mark in PAUSES):
            continue
        other = " ".join(_swapped(spoken, i))
        if topic(other) is None:
            found.append((other, " ".join(_swapped(said, i))))
    return found


def draw_story(world: World, rng: np.random.Generator) -> Story:
    """A story about somebody, and the same with an ending that contradicts its opening in one word."""
    opening, ending, slot, table = STORIES[int(rng.integers(len(STORIES)))]
    slots = derive(world, draw_keys(world, rng))
    others = [word for word in getattr(world_facts, table) if word not in slots.values()]
    wrong = slots | {slot: others[int(rng.integers(len(others)))]}
    return Story(say(opening, slots), say(ending, slots), say(ending, wrong))


def draw_topics(world: World, rng: np.random.Generator) -> Story:
    """A story with its own ending, and with that of one of another form about somebody else."""
    first, second = (STORIES[int(place)] for place in rng.choice(len(STORIES), 2, replace=False))
    keys, other = draw_keys(world, rng), draw_keys(world, rng)
    while {other["p"], other["q"]} & {keys["p"], keys["q"]}:
        other = draw_keys(world, rng)
    slots: dict[str, Any] = derive(world, keys)
    return Story(say(first[0], slots), say(first[1], slots), say(second[1], derive(world, other)))


def _swaps(symbols: str) -> Iterator[str]:
    for place, symbol in enumerate(symbols):
        for kind in (VOWELS, CONSONANTS):
            if symbol in kind:
                yield from (symbols[:place] + other + symbols[place + 1 :] for other in sorted(kind - {symbol}))


def _could_be(phones: str, table: Lexicon) -> bool:
    """Is it no word, and made like one?"""
    return phones not in table.known and all(table.neighbours[three] >= COMMON for three in _neighbours(phones))


def _neighbours(phones: str) -> Iterator[tuple[str, ...]]:
    """All threes of neighbouring phones."""
    framed = f"{EDGE}{phones}{EDGE}"
    return zip(framed, framed[1:], framed[2:], strict=False)


def _swapped(row: list[str], place: int) -> list[str]:
    return [*row[:place], row[place + 1], row[place], *row[place + 2 :]]
