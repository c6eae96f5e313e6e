"""What is said in the world: sentences, questions with answers, dialogues, and a program that knows the answers.

A template has slots. The *keys* (a person, a place, two numbers ...) are drawn; all other slots follow from the
keys and the facts, so that nothing that is said contradicts anything else, and so that an answer can be computed
back from the words of its question.
"""

import dataclasses
import functools
import re
from typing import Any

import numpy as np

from slm_jax.core.errors import UserError, require
from slm_jax.data.corpora import world_facts as words
from slm_jax.data.corpora.world_facts import World

SENTENCES = (
    "{p} lives in {home} and works as a {job}.",
    "{p} is a {job} and lives in {home}.",
    "{p} likes {food}, but {q} likes {q_food}.",
    "The favourite colour of {p} is {colour}.",
    "{p} has {pets} {pet_plural} and a {thing_colour} {thing}.",
    "Every {day}, {p} plays {sport} in the {place}.",
    "{p} and {q} went to the {place} on {d}.",
    "The {place} opens at {opens} in the morning.",
    "The train to {city} leaves at {leaves} o'clock.",
    "In {city} the weather is {weather} in the {season}.",
    "{a} plus {b} is {sum}.",
    "{most} minus {least} is {difference}.",
    "{hot} is the opposite of {cold}.",
    "The day after {d} is {next_day}.",
    "Yesterday {p} {verb} a {adjective} {object} at the {place}.",
    "{p} gave the {adjective} {object} to {q}.",
    "My {relative} {verb} a {adjective} {object} in {city}.",
    "At {hour} in the {part}, {p} goes to the {place}.",
    "{q} saw the {thing_colour} {thing} of {p} near the {place}.",
    "On {d} at {hour} the {place} was {state}.",
    "The {pet} of {p} is very {state}.",
    "{p} eats {food} with {q} every {day}.",
    "There are {number} {adjective} {object_plural} in the {thing}.",
    "{p} and the {relative} of {q} play {sport} on {d}.",
    "The {adjective} {object} is {state}, and the {thing} is {cold_state}.",
    "A {job} from {city} {verb} {number} {object_plural}.",
)
TOPICS = (
    *("person", "person", "food", "colour", "belongings", "sport", "outing", "opening", "train", "weather", "sum"),
    *("difference", "opposite", "calendar", "event", "gift", "event", "outing", "sighting", "state", "state", "food"),
    *("count", "sport", "state", "event"),
)
"""What each of the sentences is about."""
QUESTIONS = (
    ("Where does {p} live?", "{p} lives in {home}.", "home"),
    ("What is the job of {p}?", "{p} is a {job}.", "job"),
    ("What does {p} like to eat?", "{p} likes {food}.", "food"),
    ("What is the favourite colour of {p}?", "It is {colour}.", "colour"),
    ("How many {pet_plural} does {p} have?", "{p} has {pets} {pet_plural}.", "pets"),
    ("What does {p} play on {day}?", "{p} plays {sport}.", "sport"),
    ("Which colour is the {thing} of {p}?", "The {thing} of {p} is {thing_colour}.", "thing_colour"),
    ("When does the {place} open?", "It opens at {opens}.", "opens"),
    ("When does the train to {city} leave?", "It leaves at {leaves} o'clock.", "leaves"),
    ("How is the weather in {city}?", "The weather is {weather}.", "weather"),
    ("What is {a} plus {b}?", "{a} plus {b} is {sum}.", "sum"),
    ("What is {most} minus {least}?", "It is {difference}.", "difference"),
    ("What is the opposite of {cold}?", "The opposite of {cold} is {hot}.", "hot"),
    ("Which day comes after {d}?", "{next_day} comes after {d}.", "next_day"),
)
DIALOGUES = (
    (("Hello {p}, where do you live?", None), ("I live in {home}.", "home"), ("And what is your job?", None),
     ("I am a {job}.", "job")),
    (("Excuse me, when does the {place} open?", None), ("It opens at {opens} in the morning.", "opens"),
     ("Thank you very much.", None)),
    (("When does the train to {city} leave?", None), ("The train to {city} leaves at {leaves}.", "leaves"),
     ("And how is the weather in {city}?", None), ("It is {weather}.", "weather")),
    (("{p}, can you help me with my numbers?", None), ("Yes, of course.", None), ("What is {a} plus {b}?", None),
     ("{a} plus {b} is {sum}.", "sum"), ("And what is {most} minus {least}?", None),
     ("It is {difference}.", "difference")),
    (("Good evening {p}, what would you like to eat?", None), ("I would like some {food}, please.", "food"),
     ("And what does {q} like?", None), ("{q} likes {q_food}.", "q_food")),
    (("Do you know {p}?", None), ("Yes, {p} is a {job} from {home}.", "job"),
     ("What is the favourite colour of {p}?", None), ("I think it is {colour}.", "colour")),
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Utterance:
    """Something said: `turns` of (voice, text), voice 0 or 1, with the answer word that each turn must hold or None."""

    kind: str
    turns: tuple[tuple[int, str, str | None], ...]

    @property
    def text(self) -> str:
        """All turns in one line."""
        return " ".join(text for _, text, _ in self.turns)


def compose(kind: str, world: World, rng: np.random.Generator) -> Utterance:
    """One utterance of `kind` that agrees with the facts of `world`.

    `kind`: `sentence`, `question`, `question_answer` or `dialogue`.
    """
    slots = derive(world, draw_keys(world, rng))
    if kind == "sentence":
        template = SENTENCES[int(rng.integers(len(SENTENCES)))]
        return Utterance(kind, ((0, say(template, slots), None),))
    if kind in ("question", "question_answer"):
        question, answer, slot = QUESTIONS[int(rng.integers(len(QUESTIONS)))]
        both = ((0, say(question, slots), None), (1, say(answer, slots), slots[slot]))
        return Utterance(kind, both[:1] if kind == "question" else both)
    turns = DIALOGUES[int(rng.integers(len(DIALOGUES)))]
    said = [(i % 2, say(text, slots), slot and slots[slot]) for i, (text, slot) in enumerate(turns)]
    return Utterance(kind, tuple(said))


def answer(world: World, question: str) -> str | None:
    """The word that answers `question`, worked out from its words and the facts; None for an unknown question."""
    found = reply(world, question)
    return found and found[1]


def reply(world: World, question: str) -> tuple[str, str] | None:
    """The sentence that answers `question`, and the word in it that matters; None for an unknown question."""
    for template, sentence, slot in QUESTIONS:
        if match := _pattern(template).fullmatch(question.strip()):
            known = {name: _spelling(name, word) for name, word in match.groupdict().items()}
            slots = derive(world, _complete_keys(world, known))
            return say(sentence, slots), slots[slot]
    return None


def topic(text: str) -> str | None:
    """What a sentence is about, one of `TOPICS`; None for one that the grammar has not."""
    said = text.strip()
    return next((t for form, t in zip(SENTENCES, TOPICS, strict=True) if _pattern(form).fullmatch(said)), None)


def alike(world: World, question: str, count: int, rng: np.random.Generator) -> list[str]:
    """`count` sentences that answer other questions of the form of `question`, and not this one.

    Raises `UserError` for an unknown question, and where the form has not so many other answers.
    """
    form = next((form for form in QUESTIONS if _pattern(form[0]).fullmatch(question.strip())), None)
    require(form is not None, "question", question, "is none that the world knows")
    assert form is not None  # for the type checker
    found: dict[str, None] = {}
    for _ in range(100 * count):
        if len(found) == count:
            return list(found)
        slots = derive(world, draw_keys(world, rng))
        if say(form[0], slots) != question.strip():
            found.setdefault(say(form[1], slots))
    raise UserError(f"question {question!r}: fewer than {count} others of its form have different answers")


def is_correct(world: World, question: str, said: str) -> bool:
    """Does `said` hold the word that answers `question`?"""
    expected = answer(world, question)
    return expected is not None and expected.lower() in spoken_words(said)


def spoken_words(text: str) -> list[str]:
    """The words of a text in lower case, without punctuation."""
    return re.findall(r"[a-z']+", text.lower())


def draw_keys(world: World, rng: np.random.Generator) -> dict[str, Any]:
    """Random keys: what a template may be free to choose."""
    p, q = rng.choice(len(words.PEOPLE), 2, replace=False)
    most, least = sorted(rng.choice(len(words.NUMBERS), 2, replace=False))[::-1]
    part, first, last = words.PARTS_OF_DAY[int(rng.integers(len(words.PARTS_OF_DAY)))]
    pair = words.OPPOSITES[int(rng.integers(len(words.OPPOSITES)))]
    keys = {
        "p": words.PEOPLE[p], "q": words.PEOPLE[q], "a": words.NUMBERS[int(rng.integers(1, 11))],
        "b": words.NUMBERS[int(rng.integers(1, 11))], "most": words.NUMBERS[most], "least": words.NUMBERS[least],
        "cold": pair[int(rng.integers(2))], "part": part, "hour": words.NUMBERS[int(rng.integers(first, last + 1))],
        "state": words.OPPOSITES[int(rng.integers(len(words.OPPOSITES)))][int(rng.integers(2))],
    }  # fmt: skip
    free = {
        "place": words.PLACES, "city": words.CITIES, "d": words.DAYS, "season": words.SEASONS,
        "adjective": words.ADJECTIVES, "object": words.OBJECTS, "verb": words.VERBS_WITH_OBJECT,
        "number": words.NUMBERS[2:],
    }  # fmt: skip
    return keys | {name: known[int(rng.integers(len(known)))] for name, known in free.items()}


def derive(world: World, keys: dict[str, Any]) -> dict[str, str]:
    """All slots that follow from the keys."""
    p, q = world.people[keys["p"]], world.people[keys["q"]]
    number = words.NUMBERS.index
    return keys | {
        "home": p.home, "job": p.job, "colour": p.colour, "food": p.food, "sport": p.sport, "day": p.day,
        "relative": p.relative, "thing": p.thing, "thing_colour": p.thing_colour, "pet": p.pet,
        "pets": words.NUMBERS[p.pets], "pet_plural": plural(p.pet), "q_food": q.food,
        "opens": words.NUMBERS[world.opens[keys["place"]]], "leaves": words.NUMBERS[world.leaves[keys["city"]]],
        "weather": world.weather[keys["city"]], "sum": words.NUMBERS[number(keys["a"]) + number(keys["b"])],
        "difference": words.NUMBERS[number(keys["most"]) - number(keys["least"])],
        "hot": opposite(keys["cold"]), "cold_state": opposite(keys["state"]),
        "next_day": words.DAYS[(words.DAYS.index(keys["d"]) + 1) % 7], "object_plural": plural(keys["object"]),
    }  # fmt: skip


def plural(noun: str) -> str:
    """The plural of a noun of this world."""
    if noun == "fish":
        return noun
    return noun[:-1] + "ies" if noun.endswith("y") and noun[-2] not in "aeiou" else noun + "s"


def opposite(adjective: str) -> str:
    """The other half of a pair of opposites."""
    pair = next(pair for pair in words.OPPOSITES if adjective in pair)
    return pair[1 - pair.index(adjective)]


def say(template: str, slots: dict[str, str]) -> str:
    """A template with its slots filled, the first letter a capital."""
    text = template.format(**slots)
    return text[0].upper() + text[1:]


def _complete_keys(world: World, known: dict[str, str]) -> dict[str, Any]:
    """Keys as a question names them; the others are arbitrary, since its answer does not depend on them."""
    return draw_keys(world, np.random.default_rng(0)) | known


@functools.cache
def _pattern(template: str) -> re.Pattern[str]:
    """A template as a regular expression with one group per slot."""
    parts = re.split(r"\{(\w+)\}", template)
    groups = "".join(re.escape(part) if i % 2 == 0 else rf"(?P<{part}>\w+)" for i, part in enumerate(parts))
    return re.compile(groups, re.IGNORECASE)


def _spelling(slot: str, word: str) -> str:
    """A word as the tables spell it: a number at the start of a sentence has a capital there."""
    capital = {"p", "q", "city", "d"}
    return word.capitalize() if slot in capital else word.lower()
