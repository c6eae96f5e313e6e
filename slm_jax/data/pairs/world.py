"""The tests of the field, made in the world: so that there are figures where nothing was downloaded.

words      a word of the world, and the same with one phone swapped, which no lexicon has      (as sWUGGY)
grammar    a held-out sentence, and the same with two neighbouring words swapped               (as sBLIMP)
endings    two sentences, and the same with one word of the second that contradicts the first  (as sStoryCloze)
topics     two sentences, and the first with the second of another story                       (as tStoryCloze)
speakers   a held-out sentence, and the same gone on with in its middle by another voice       (as SALMon)
manner     ... or in another rate, energy or register                                          (as SALMon's sentiment)

Both members of a pair are said in one voice at one speed and level with the same noise, but for what is tested: grammar
has the same phones, speakers and manner the same words; the second speaker has the tempo of the first.
"""

import dataclasses
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

from slm_jax.core.config import Config
from slm_jax.core.errors import UserError, require
from slm_jax.data.corpora.settings import STYLES, WorldConfig
from slm_jax.data.corpora.splits import dealt_out, split_of
from slm_jax.data.corpora.world_facts import World, make_world
from slm_jax.data.corpora.world_grammar import compose
from slm_jax.data.corpora.world_manner import LABELS, RATES, registered
from slm_jax.data.corpora.world_plans import base_id
from slm_jax.data.corpora.world_voice import Speaker, make_speakers, the_voice
from slm_jax.data.pairs.pair import SpeechPair
from slm_jax.data.pairs.world_clips import Manner, SpokenClip, Stretch
from slm_jax.data.pairs.world_texts import (
    SHORTEST,
    Story,
    draw_story,
    draw_topics,
    nonwords,
    phones_of,
    swaps_of_words,
    words,
)

VOICES = ("new", "known")
FEWEST = 4
"""Voices that pairs are spoken in at least."""
PAUSE_S = 0.25
"""Silence between the two sentences of a story."""
TRIES = 2000
"""Draws for a pair that is not there yet; then a test has no more."""


class Drawn(NamedTuple):
    """A right and a wrong clip, and the group that they belong to."""

    right: SpokenClip
    wrong: SpokenClip
    group: str = ""


@dataclasses.dataclass(frozen=True)
class Scene:
    """Who and what there is in a world of pairs; `seed`: that of one pair's noise."""

    corpus: WorldConfig
    world: World
    speakers: tuple[Speaker, ...]
    seed: tuple[int, ...]

    def speaker(self, rng: np.random.Generator) -> Speaker:
        """Any of the voices."""
        return self.speakers[int(rng.integers(len(self.speakers)))]

    def manner(self, rng: np.random.Generator) -> Manner:
        """Any of the voices at a speed of the corpus."""
        return Manner(self.speaker(rng), round(float(rng.uniform(self.corpus.slowest, self.corpus.fastest)), 4))

    def sentence(self, rng: np.random.Generator) -> str:
        """A sentence that is of the test split where the corpus says it; raises `UserError` where none is found."""
        for _ in range(TRIES):
            text = compose("sentence", self.world, rng).text
            if is_held_out(text, self.corpus):
                return text
        raise UserError(f"test_share is {self.corpus.test_share}: of {TRIES} sentences none is held out")

    def stretch(self, symbols: str, manner: Manner, first: int = 0, end: int | None = None) -> Stretch:
        """Some words of a sentence."""
        return Stretch(symbols, manner, self.seed, first, end)


class WorldPairs(Config):
    """Which tests, and how many pairs of each (`count`, None: as many as the judge looks at); `seed` draws them.

    `voices`: "new" are those of the corpus' test split where it is split by speaker, else voices that it has not;
    "known" are those it is trained on. Sentences are of the corpus' test split where it is split by id or text.
    """

    kinds: tuple[str, ...] = ("words", "grammar", "endings", "topics", "speakers", "manner")
    count: int | None = None
    seed: int = 0
    voices: str = "new"

    def __post_init__(self) -> None:
        known = bool(self.kinds) and set(self.kinds) <= set(KINDS) and len(set(self.kinds)) == len(self.kinds)
        require(known, "kinds", self.kinds, f"some of {', '.join(KINDS)}, each once")
        require(self.count is None or self.count >= 1, "count", self.count, "at least 1, or None")
        require(self.seed >= 0, "seed", self.seed, "a non-negative number")
        require(self.voices in VOICES, "voices", self.voices, f"one of {', '.join(VOICES)}")

    def pairs(self, corpus: WorldConfig, count: int = 24) -> list[SpeechPair]:
        """`count` pairs of each kind, unless `self.count` says otherwise, in the world and the voices of a corpus.

        There are fewer where a test has no more. Nothing is spoken before a clip is asked for its samples.
        """
        found = []
        for kind in self.kinds:
            drawn = enumerate(self._drawn(kind, corpus, self.count or count))
            found += [_pair(kind, place, one) for place, one in drawn]
        return found

    def speakers(self, corpus: WorldConfig) -> tuple[Speaker, ...]:
        """The voices in which pairs are spoken, at least four unless they are known ones."""
        more = make_speakers(corpus.speakers + FEWEST, corpus.seed)
        own, fresh = more[: corpus.speakers], more[corpus.speakers :]
        splits = dict.fromkeys((one.name for one in own), "train")
        if corpus.split_by == "speaker":
            splits = dealt_out(list(splits), corpus)
        if self.voices == "known":
            return tuple(one for one in own if splits[one.name] == "train")
        held_out = tuple(one for one in own if splits[one.name] == "test")
        return held_out if len(held_out) >= FEWEST else held_out + fresh

    def _drawn(self, kind: str, corpus: WorldConfig, count: int) -> Iterator[Drawn]:
        """`count` pairs of a kind, no right member twice."""
        number = tuple(KINDS).index(kind)
        rng = np.random.default_rng([self.seed, corpus.seed, 6, number])
        scene = Scene(corpus, make_world(corpus.seed), self.speakers(corpus), ())
        require(kind != "speakers" or len(scene.speakers) > 1, "voices", self.voices, "two at least, to change between")
        said: set[str] = set()
        for place in range(count):
            own = dataclasses.replace(scene, seed=(self.seed, corpus.seed, 6, number, place))
            fresh = (one for _ in range(TRIES) if (one := KINDS[kind](own, rng, place)) and one.right.text not in said)
            one = next(fresh, None)
            if one is None:
                return
            said.add(one.right.text)
            yield one


def is_held_out(text: str, corpus: WorldConfig) -> bool:
    """Can no sentence of the training split say this? True where voices are held out, or nothing is."""
    if corpus.split_by == "speaker" or not corpus.test_share:
        return True
    return split_of(base_id("sentence", text), corpus, text=text) == "test"


def _words(scene: Scene, rng: np.random.Generator, number: int) -> Drawn | None:
    known = words()
    word = known[int(rng.integers(len(known)))]
    symbols, manner = the_voice().symbols(f"{word}."), scene.manner(rng)
    others = nonwords(symbols) if len(phones_of(symbols)) >= SHORTEST else []
    if not others:
        return None
    other = others[int(rng.integers(len(others)))]
    right, wrong = (SpokenClip(text, (scene.stretch(text, manner),)) for text in (symbols, other))
    return Drawn(dataclasses.replace(right, text=word), wrong)


def _grammar(scene: Scene, rng: np.random.Generator, number: int) -> Drawn | None:
    text, manner = scene.sentence(rng), scene.manner(rng)
    symbols = the_voice().symbols(text)
    swaps = swaps_of_words(text, symbols)
    if not swaps:
        return None
    other, mixed = swaps[int(rng.integers(len(swaps)))]
    right, wrong = (
        SpokenClip(text, (scene.stretch(symbols, manner),)),
        SpokenClip(other, (scene.stretch(mixed, manner),)),
    )
    return Drawn(right, wrong)


def _endings(scene: Scene, rng: np.random.Generator, number: int) -> Drawn:
    return _told(scene, rng, draw_story(scene.world, rng))


def _topics(scene: Scene, rng: np.random.Generator, number: int) -> Drawn:
    return _told(scene, rng, draw_topics(scene.world, rng))


def _told(scene: Scene, rng: np.random.Generator, story: Story) -> Drawn:
    """A story with either ending; the opening is the same to the sample."""
    voice, manner = the_voice(), scene.manner(rng)
    opening = scene.stretch(voice.symbols(story.opening), manner)
    right, wrong = (
        SpokenClip(f"{story.opening} {ending}", (opening, scene.stretch(voice.symbols(ending), manner)), PAUSE_S)
        for ending in (story.right, story.wrong)
    )
    return Drawn(right, wrong)


def _speakers(scene: Scene, rng: np.random.Generator, number: int) -> Drawn:
    manner = scene.manner(rng)
    others = [one for one in scene.speakers if one.name != manner.speaker.name]
    other = dataclasses.replace(others[int(rng.integers(len(others)))], tempo=manner.speaker.tempo)
    return _changed(scene, scene.sentence(rng), manner, dataclasses.replace(manner, speaker=other))


def _manner(scene: Scene, rng: np.random.Generator, number: int) -> Drawn:
    style, manner = STYLES[number % len(STYLES)], scene.manner(rng)
    low, _, high = LABELS[style]
    one, other = (_in_style(manner, style, label) for label in rng.permutation([low, high]))
    return _changed(scene, scene.sentence(rng), one, other)._replace(group=style)


def _in_style(manner: Manner, style: str, label: str) -> Manner:
    """The same voice in a rate, an energy or a register."""
    if style == "rate":
        return dataclasses.replace(manner, speed=RATES[label])
    if style == "energy":
        return dataclasses.replace(manner, level=str(label))
    return dataclasses.replace(manner, speaker=registered(manner.speaker, {"register": label}))


def _changed(scene: Scene, text: str, one: Manner, other: Manner) -> Drawn:
    """A sentence said in one manner, and the same whose second half is said in another."""
    symbols = the_voice().symbols(text)
    middle = len(text.split()) // 2
    start, kept, changed = (
        scene.stretch(symbols, one, end=middle),
        *(scene.stretch(symbols, how, first=middle) for how in (one, other)),
    )
    return Drawn(SpokenClip(text, (start, kept)), SpokenClip(text, (start, changed)))


def _pair(kind: str, place: int, one: Drawn) -> SpeechPair:
    name = f"{place:04d}"
    return SpeechPair(f"world {kind}", name, name, one.group, one.right, one.wrong)


KINDS: dict[str, Callable[[Scene, np.random.Generator, int], Drawn | None]] = {
    "words": _words,
    "grammar": _grammar,
    "endings": _endings,
    "topics": _topics,
    "speakers": _speakers,
    "manner": _manner,
}
"""Kind -> who draws one pair of it, None where the draw made none; the order decides the seeds."""
