"""Written instructions and questions about what is heard in the world, with answers that the world knows.

    for task, asked, reply in instructions(item, np.random.default_rng(0), world=make_world(config.seed)): ...
    is_right("rate", "slow", "It is spoken slowly.")      # False: `slow` is the word; "It is slow." is right

A task is data: wordings of the question, wordings of the reply, and the labels among which a reply must choose.
"""

import dataclasses
import re
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from slm_jax.core.errors import require
from slm_jax.core.messages import Turn
from slm_jax.data.corpora.world_facts import NUMBERS, World
from slm_jax.data.corpora.world_grammar import reply as reply_to
from slm_jax.data.corpora.world_grammar import spoken_words
from slm_jax.data.corpora.world_manner import LEVELS_DB, RATES, REGISTERS


@dataclasses.dataclass(frozen=True)
class Task:
    """`asks` and `replies`: wordings, a reply with a place for the answer. `labels`: a right reply holds one only."""

    asks: tuple[str, ...]
    replies: tuple[str, ...]
    labels: tuple[str, ...] = ()


SOUNDS = ("deep", "high")
TASKS: dict[str, Task] = {
    "transcription": Task(
        ("Write down what is said.", "Transcribe the recording.", "What is said here?",
         "Please put the speech into writing.", "Give me the words of this recording."),
        ("{answer}",),
    ),
    "last_word": Task(
        ("Repeat the last word.", "What is the last word?", "With which word does the recording end?",
         "Give me only the final word."),
        ("{answer}", "The last word is {answer}.", "It ends with {answer}."),
    ),
    "word_count": Task(
        ("How many words are said?", "Count the words.", "Of how many words is the recording made?",
         "Tell me the number of words."),
        ("{answer}", "There are {answer} words.", "I count {answer}."),
        NUMBERS,
    ),
    "speaker": Task(
        ("Who speaks?", "Whose voice is this?", "Name the speaker.", "Tell me who is talking."),
        ("{answer}", "This is {answer}.", "The speaker is {answer}."),
    ),
    "voice": Task(
        ("Is the voice deep or high?", "What kind of voice is it, high or deep?",
         "Does the speaker have a deep voice or a high one?", "Describe the voice: high or deep?"),
        ("{answer}", "It is {answer}.", "The voice is {answer}."),
        SOUNDS,
    ),
    "rate": Task(
        ("Is the speech slow, normal or fast?", "How fast is it spoken: slow, normal or fast?",
         "Judge the speaking rate as slow, normal or fast.", "Is the rate of speech fast, normal or slow?"),
        ("{answer}", "It is {answer}.", "The rate is {answer}."),
        tuple(RATES),
    ),
    "energy": Task(
        ("Is the speech soft, normal or loud?", "How loud is it: soft, normal or loud?",
         "Judge the loudness as soft, normal or loud.", "Is the speaker loud, normal or soft?"),
        ("{answer}", "It is {answer}.", "The speech is {answer}."),
        tuple(LEVELS_DB),
    ),
    "register": Task(
        ("Is the pitch low, normal or high for this voice?",
         "In which register does the voice speak: low, normal or high?",
         "Judge the speaker's pitch as low, normal or high.", "Is the register high, normal or low?"),
        ("{answer}", "It is {answer}.", "The register is {answer}."),
        tuple(REGISTERS),
    ),
    "speakers": Task(
        ("How many people speak?", "How many different voices are there?", "Count the speakers.",
         "Tell me the number of people in the recording."),
        ("{answer}", "I hear {answer}.", "The number of speakers is {answer}."),
        NUMBERS,
    ),
    "first_speaker": Task(
        ("Who speaks first?", "Who begins the conversation?", "Name the speaker of the first turn.",
         "Whose voice is heard first?"),
        ("{answer}", "It is {answer}.", "The first to speak is {answer}."),
    ),
    "first_voice": Task(
        ("Which voice is heard first, the deep or the high one?", "Is the first speaker's voice high or deep?",
         "Who begins, the high voice or the deep one?", "Does a deep voice begin or a high one?"),
        ("{answer}", "The {answer} one.", "The {answer} voice begins."),
        SOUNDS,
    ),
    "fact": Task(
        ("Answer the question.", "What is the answer to what is asked?", "Reply to the speaker.",
         "Please answer what you hear."),
        ("{answer}",),
    ),
}  # fmt: skip
"""Task -> its wordings. The reply of `fact` is the whole sentence of the grammar."""
NAMES = ("speaker", "first_speaker")
"""Tasks whose answer is a speaker's name, such as `world-3`."""


class Instruction(NamedTuple):
    """A written turn of the user about what is heard, and the assistant's reply, whose `answer` a right one holds."""

    task: str
    asked: Turn
    reply: Turn


def instructions(
    record: dict[str, Any], rng: np.random.Generator, *, world: World | None = None, names_known: bool = True
) -> tuple[Instruction, ...]:
    """One instruction of every task whose answer is known for this record, in a wording that is drawn.

    `record`: an item of the world (`turns`, and of each `speaker`, `text` and, where they are known, `sound` and the
    labels of its style). `world`: the facts, for spoken questions. Without `names_known` nobody is asked who speaks,
    as is right where speakers are held out.
    """
    found = []
    for task, answer_of in _ANSWERS.items():
        answer = answer_of(record["turns"], world)
        if answer is not None and (names_known or task not in NAMES):
            found.append(_worded(task, *answer, rng))
    return tuple(found)


def is_right(task: str, answer: str, reply: str) -> bool:
    """Does `reply` hold `answer`, word by word, and none of the task's other labels? Digits count as their words.

    Of names, a reply must hold one only. Raises `UserError` for an unknown task.
    """
    require(task in TASKS, "task", task, f"one of {', '.join(TASKS)}")
    said, wanted = _words(reply), _words(answer)
    if not _holds(said, wanted):
        return False
    if task in NAMES:
        return len({said[i + 1] for i, word in enumerate(said[:-1]) if word == wanted[0]}) == 1
    return all(label == answer.lower() or not _holds(said, [label]) for label in TASKS[task].labels)


def _worded(task: str, answer: str, sentence: str | None, rng: np.random.Generator) -> Instruction:
    wordings = TASKS[task]
    ask, form = (table[int(rng.integers(len(table)))] for table in (wordings.asks, wordings.replies))
    text = form.format(answer=sentence or answer)
    return Instruction(task, Turn("user", ask), Turn("assistant", text, answer=answer))


Answer = tuple[str, str | None] | None
"""The word or words that a right reply holds, with a whole sentence that says it where there is one."""


def _label(field: str) -> Callable[[list[dict[str, Any]], World | None], Answer]:
    """The answer that a field of the only turn holds."""

    def answer(turns: list[dict[str, Any]], world: World | None) -> Answer:
        return (turns[0][field], None) if len(turns) == 1 and turns[0].get(field) else None

    return answer


def _transcription(turns: list[dict[str, Any]], world: World | None) -> Answer:
    return " ".join(turn["text"] for turn in turns), None


def _last_word(turns: list[dict[str, Any]], world: World | None) -> Answer:
    return (turns[0]["text"].split()[-1].strip(".,!?"), None) if len(turns) == 1 else None


def _word_count(turns: list[dict[str, Any]], world: World | None) -> Answer:
    count = len(spoken_words(turns[0]["text"]))
    return (NUMBERS[count], None) if len(turns) == 1 and count < len(NUMBERS) else None


def _voice(turns: list[dict[str, Any]], world: World | None) -> Answer:
    sound = _plain_sound(turns[0])
    return (sound, None) if len(turns) == 1 and sound else None


def _speakers(turns: list[dict[str, Any]], world: World | None) -> Answer:
    return NUMBERS[len({turn["speaker"] for turn in turns})], None


def _first_speaker(turns: list[dict[str, Any]], world: World | None) -> Answer:
    return (turns[0]["speaker"], None) if len({turn["speaker"] for turn in turns}) > 1 else None


def _first_voice(turns: list[dict[str, Any]], world: World | None) -> Answer:
    by_speaker = {
        turn["speaker"]: {_plain_sound(t) for t in turns if t["speaker"] == turn["speaker"]} for turn in turns
    }
    clear = sorted(sound for sounds in by_speaker.values() for sound in sounds) == list(SOUNDS)
    return (_plain_sound(turns[0]), None) if clear else None


def _fact(turns: list[dict[str, Any]], world: World | None) -> Answer:
    known = reply_to(world, turns[0]["text"]) if world and len(turns) == 1 else None
    return (known[1], known[0]) if known else None


def _plain_sound(turn: dict[str, Any]) -> str:
    """Deep or high, empty where a register makes a deep voice high or a high one low."""
    sound = turn.get("sound", "")
    return "" if (sound, turn.get("register")) in (("deep", "high"), ("high", "low")) else sound


_ANSWERS: dict[str, Callable[[list[dict[str, Any]], World | None], Answer]] = {
    "transcription": _transcription,
    "last_word": _last_word,
    "word_count": _word_count,
    "speaker": _label("speaker"),
    "voice": _voice,
    "rate": _label("speaking_rate"),
    "energy": _label("energy"),
    "register": _label("register"),
    "speakers": _speakers,
    "first_speaker": _first_speaker,
    "first_voice": _first_voice,
    "fact": _fact,
}


def _words(text: str) -> list[str]:
    """Words in lower case without punctuation, numbers up to twenty spelt out."""
    found = re.findall(r"[a-z']+|\d+", text.lower())
    return [NUMBERS[int(word)] if word.isdigit() and int(word) < len(NUMBERS) else word for word in found]


def _holds(words: list[str], wanted: list[str]) -> bool:
    width = len(wanted)
    return any(words[i : i + width] == wanted for i in range(len(words) - width + 1))
