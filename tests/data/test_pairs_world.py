"""Pairs of the world: what is changed, what stays, and that they are the same each time."""

import numpy as np
import pytest

from slm_jax.core.errors import UserError
from slm_jax.data.corpora.settings import STYLES, WorldConfig
from slm_jax.data.corpora.splits import dealt_out
from slm_jax.data.corpora.world_facts import make_world
from slm_jax.data.corpora.world_grammar import topic
from slm_jax.data.corpora.world_plans import plans
from slm_jax.data.corpora.world_voice import make_speakers
from slm_jax.data.pairs.world import WorldPairs, is_held_out
from slm_jax.data.pairs.world_texts import ALIKE, lexicon, nonwords, phones_of

CORPUS = WorldConfig(speakers=2, test_share=0.3)
RATE_HZ = 16_000
COUNT = 6


@pytest.fixture(scope="module")
def pairs():
    return WorldPairs().pairs(CORPUS, COUNT)


def of(pairs, kind):
    return [pair for pair in pairs if pair.test == f"world {kind}"]


def symbols(clip):
    return [one.symbols for one in clip.stretches]


def test_there_are_as_many_of_each_kind_as_asked_for_and_the_seed_decides(pairs):
    assert [pair.test for pair in pairs[::COUNT]] == [f"world {kind}" for kind in WorldPairs().kinds]
    assert WorldPairs().pairs(CORPUS, COUNT) == pairs
    assert WorldPairs(seed=1).pairs(CORPUS, COUNT) != pairs
    assert [*WorldPairs(kinds=("grammar",), count=3).pairs(CORPUS)] == of(pairs, "grammar")[:3]


def test_a_nonword_is_its_word_but_for_one_phone_and_in_no_lexicon(pairs):
    for pair in of(pairs, "words"):
        (right,), (wrong,) = symbols(pair.positive), symbols(pair.negative)
        assert len(right) == len(wrong) and sum(a != b for a, b in zip(right, wrong, strict=True)) == 1
        assert phones_of(right) in lexicon().known and phones_of(wrong) not in lexicon().known
    assert "kˈɪt." not in nonwords("kˈæt.") and phones_of("kˈɪt.") in lexicon().known
    assert "pətˈATOz".translate(ALIKE) == phones_of("pətˈAɾOz.") == "pətAtOz"


def test_an_ungrammatical_sentence_has_the_same_phones_and_no_form_of_the_grammar(pairs):
    for pair in of(pairs, "grammar"):
        (right,), (wrong,) = symbols(pair.positive), symbols(pair.negative)
        assert right != wrong and sorted(right.split()) == sorted(wrong.split())
        assert topic(pair.positive.text) is not None and topic(pair.negative.text) is None


def test_endings_contradict_their_opening_and_topics_leave_it(pairs):
    people = make_world(CORPUS.seed).people
    for pair in of(pairs, "endings"):
        right, wrong = pair.positive.text.split(), pair.negative.text.split()
        (other,) = [b for a, b in zip(right, wrong, strict=True) if a != b]
        assert other.strip(".") not in right  # what is said instead was not said before
    for pair in of(pairs, "topics"):
        (opening, right), (same, wrong) = symbols(pair.positive), symbols(pair.negative)
        assert opening == same and right != wrong
        said = [clip.text.split(". ")[1] for clip in (pair.positive, pair.negative)]
        named = [{name for name in people if name in text} for text in said]
        assert named[0] and named[1] and not named[0] & named[1]


def test_only_the_second_half_is_changed(pairs):
    for pair in (of(pairs, "speakers")[0], *of(pairs, "manner")[: len(STYLES)], of(pairs, "endings")[0]):
        right, wrong = pair.positive.samples(RATE_HZ), pair.negative.samples(RATE_HZ)
        first = len(pair.positive.stretches[0].samples(RATE_HZ))
        assert np.array_equal(right[:first], wrong[:first]) and np.abs(right[:first]).max() > 0.01
        length = min(len(right), len(wrong))
        assert not np.allclose(right[first:length], wrong[first:length], atol=1e-3)
    start, end = of(pairs, "speakers")[0].negative.stretches
    assert (
        start.manner.speaker.name != end.manner.speaker.name and start.manner.speaker.tempo == end.manner.speaker.tempo
    )
    assert [pair.group for pair in of(pairs, "manner")] == [*STYLES, *STYLES]


def test_a_kept_sentence_is_as_long_as_it_is_whole_and_comes_again_to_the_sample(pairs):
    clip = of(pairs, "speakers")[0].positive
    start, end = clip.stretches
    whole = start.__class__(start.symbols, start.manner, start.seed).samples(RATE_HZ)
    assert len(clip.samples(RATE_HZ)) == len(whole) and np.array_equal(clip.samples(RATE_HZ), clip.samples(RATE_HZ))
    assert np.corrcoef(clip.samples(RATE_HZ), whole)[0, 1] > 0.99  # but for the fades
    assert end.first == start.end == len(start.symbols.split(" ")) // 2


def test_sentences_are_those_of_the_test_split(pairs):
    texts = [pair.positive.text for kind in ("grammar", "speakers", "manner") for pair in of(pairs, kind)]
    assert all(is_held_out(text, CORPUS) for text in texts)
    endless = plans(CORPUS, "sentence")
    for plan in (next(endless) for _ in range(40)):
        assert (plan["split"] == "test") == is_held_out(plan["turns"][0][2], CORPUS)


def test_where_next_to_nothing_is_held_out_it_is_said():
    with pytest.raises(UserError, match="of 2000 sentences none is held out"):
        WorldPairs(kinds=("grammar",)).pairs(WorldConfig(test_share=1e-9), 1)


def test_voices_are_new_held_out_or_known():
    def names(maker, corpus):
        return {one.name for one in maker.speakers(corpus)}

    assert names(WorldPairs(), CORPUS) == {f"world-{number}" for number in range(2, 6)}
    assert names(WorldPairs(voices="known"), CORPUS) == {"world-0", "world-1"}
    many = WorldConfig(speakers=20, split_by="speaker", test_share=0.3)
    splits = dealt_out([one.name for one in make_speakers(20, many.seed)], many)
    assert names(WorldPairs(), many) == {name for name, split in splits.items() if split == "test"}
    assert names(WorldPairs(voices="known"), many) == {name for name, split in splits.items() if split == "train"}
    with pytest.raises(UserError, match="two at least, to change between"):
        WorldPairs(kinds=("speakers",), voices="known").pairs(WorldConfig(), 1)
    with pytest.raises(UserError, match=r"kinds is .'songs',.: some of words, grammar"):
        WorldPairs(kinds=("songs",))
