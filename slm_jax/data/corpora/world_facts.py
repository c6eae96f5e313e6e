"""The world's words and its facts: who lives where and likes what, drawn once from a seed and true ever after."""

import dataclasses
from typing import Any

import numpy as np


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


PEOPLE = _words(
    "Anna Paul Maria David Emma Oliver Sophie Peter Lucy Henry Clara Martin Alice Robert Nora Simon "
    "Julia Thomas Helen Victor"
)
CITIES = _words("London Paris Rome Berlin Madrid Vienna Dublin Oslo Athens Lisbon Prague Warsaw")
JOBS = _words("teacher doctor baker farmer painter driver nurse singer gardener writer pilot cook dancer lawyer")
COLOURS = _words("red green blue yellow white black brown purple pink silver")
PETS = _words("dog cat horse bird rabbit fish turtle pony duck goat")
FOODS = _words("bread soup rice cheese cake fish honey chicken chocolate potatoes tomatoes pancakes")
THINGS = _words("house car coat hat boat door bag chair table lamp cup box bicycle kitchen garden")
SPORTS = _words("football tennis chess piano guitar cards")
PLACES = _words("bakery market library school museum station park theatre harbour church hotel bank")
DAYS = _words("Monday Tuesday Wednesday Thursday Friday Saturday Sunday")
NUMBERS = _words(
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen "
    "seventeen eighteen nineteen twenty"
)
OPPOSITES = (
    ("hot", "cold"), ("big", "small"), ("new", "old"), ("fast", "slow"), ("happy", "sad"), ("light", "dark"),
    ("full", "empty"), ("clean", "dirty"), ("rich", "poor"), ("near", "far"), ("strong", "weak"), ("wet", "dry"),
    ("high", "low"), ("hard", "soft"), ("loud", "quiet"), ("thick", "thin"),
)  # fmt: skip
ADJECTIVES = _words("little lovely heavy broken golden wooden strange simple famous pretty quiet bright warm fresh")
OBJECTS = _words("letter book flower picture ticket basket blanket bottle candle clock mirror spoon key map ring")
RELATIVES = _words("mother father sister brother friend neighbour daughter son")
VERBS_WITH_OBJECT = _words("bought found sold lost painted carried dropped showed borrowed wanted")
WEATHER = _words("sunny cloudy windy rainy snowy foggy")
PARTS_OF_DAY = (("morning", 6, 11), ("afternoon", 1, 5), ("evening", 6, 9))
SEASONS = _words("spring summer autumn winter")


@dataclasses.dataclass(frozen=True)
class Person:
    """One inhabitant; every attribute is a word."""

    name: str
    home: str
    job: str
    colour: str
    pet: str
    food: str
    sport: str
    day: str
    relative: str
    thing: str
    thing_colour: str
    pets: int


@dataclasses.dataclass(frozen=True)
class World:
    """A consistent base of facts: people by name, opening hours by place, departures and weather by city."""

    people: dict[str, Person]
    opens: dict[str, int]
    leaves: dict[str, int]
    weather: dict[str, str]


def make_world(seed: int) -> World:
    """The world of a seed: the same seed gives the same facts."""
    rng = np.random.default_rng([seed, 1])
    return World(
        people={name: _person(name, rng) for name in PEOPLE},
        opens={place: int(rng.integers(6, 12)) for place in PLACES},
        leaves={city: int(rng.integers(1, 13)) for city in CITIES},
        weather={city: _pick(rng, WEATHER) for city in CITIES},
    )


def _person(name: str, rng: np.random.Generator) -> Person:
    words: dict[str, Any] = {
        "home": CITIES, "job": JOBS, "colour": COLOURS, "pet": PETS, "food": FOODS, "sport": SPORTS, "day": DAYS,
        "relative": RELATIVES, "thing": THINGS, "thing_colour": COLOURS,
    }  # fmt: skip
    return Person(name=name, pets=int(rng.integers(2, 9)), **{key: _pick(rng, known) for key, known in words.items()})


def _pick(rng: np.random.Generator, words: tuple[str, ...]) -> str:
    return words[int(rng.integers(len(words)))]
