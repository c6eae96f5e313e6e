"""Splits by id, speaker and text, and keys dealt out so that no split is empty."""

import re
from collections import Counter

import pytest

from slm_jax.data.corpora.settings import WorldConfig
from slm_jax.data.corpora.splits import SPLITS, dealt_out, split_of
from slm_jax.data.corpora.world_plans import KINDS, plans

CONFIG = WorldConfig(test_share=0.3, dev_share=0.3)
BY_SPEAKER, BY_TEXT = CONFIG.replace(split_by="speaker"), CONFIG.replace(split_by="text")


def test_by_id_nothing_but_the_id_matters():
    """The splits that corpora had before there was anything else to split by."""
    expected = ["test", "dev", "test", "test", "train", "train", "dev", "test"]
    assert [split_of(f"clip-{i}", CONFIG) for i in range(8)] == expected
    assert [split_of(f"clip-{i}", CONFIG, speaker=f"s{i}", text=f"t{i}") for i in range(8)] == expected


def test_by_speaker_and_by_text():
    """The key decides whatever the id; what has none goes by its id."""
    for config, known in ((BY_SPEAKER, {"speaker": "anna"}), (BY_TEXT, {"text": "Who is there?"})):
        assert len({split_of(f"clip-{i}", config, **known) for i in range(30)}) == 1
        assert [split_of(f"clip-{i}", config) for i in range(30)] == [split_of(f"clip-{i}", CONFIG) for i in range(30)]
    for i in range(30):
        assert split_of("a", BY_TEXT, text=f"Hello,  Number {i}!") == split_of("b", BY_TEXT, text=f"hello number {i}")
    for config, name in ((BY_SPEAKER, "speaker"), (BY_TEXT, "text")):
        assert {split_of("a", config, **{name: f"key {i}"}) for i in range(30)} == set(SPLITS)


@pytest.mark.parametrize(("keys", "counts"), [(1, (1, 0, 0)), (2, (2, 0, 0)), (3, (1, 1, 1)), (20, (17, 1, 2))])
def test_dealt_out(keys, counts):
    names = [f"speaker-{i}" for i in range(keys)]
    dealt = dealt_out(names, WorldConfig())
    found = Counter(dealt.values())
    assert tuple(found[split] for split in SPLITS) == counts and set(dealt) == set(names)
    assert dealt_out(names[::-1] + names, WorldConfig()) == dealt
    assert "test" not in dealt_out(names, WorldConfig(test_share=0.0)).values()


def test_large_shares_leave_something_for_training():
    for shares in ({"test_share": 0.9}, {"dev_share": 0.89}, {"test_share": 0.5, "dev_share": 0.49}):
        dealt = dealt_out(["a", "b", "c"], WorldConfig(**shares))
        assert sorted(dealt.values()) == sorted(SPLITS)


def planned(config, count=150):
    """Plans of all kinds."""
    return [plan for kind in KINDS for plan, _ in zip(plans(config, kind), range(count), strict=False)]


def test_nobody_is_heard_in_two_splits_of_the_world():
    made = planned(WorldConfig(speakers=9, split_by="speaker", test_share=0.25, dev_share=0.25, dialogue_hours=1.0))
    split_of_speaker = {}
    for plan in made:
        for _, speaker, _, _ in plan["turns"]:
            assert split_of_speaker.setdefault(speaker, plan["split"]) == plan["split"]
        talking = {speaker for _, speaker, _, _ in plan["turns"]}
        assert len(talking) == (2 if plan["heard"] in ("dialogue", "question_answer") else 1)
    assert sorted(split_of_speaker) == list(range(9)) and set(split_of_speaker.values()) == set(SPLITS)
    dialogues = Counter(plan["split"] for plan in made if plan["kind"] == "dialogue")
    assert min(dialogues[split] for split in SPLITS) > 10


def test_nothing_is_said_in_two_splits_of_the_world():
    """A sentence and an instruction about the same words, a question with its answer and one alone: one split."""
    made = planned(WorldConfig(speakers=3, split_by="text", test_share=0.3, dev_share=0.3), count=300)
    split_of_text, again = {}, 0
    for plan in made:
        texts = [text for *_, text, _ in plan["turns"]]
        said = " ".join(texts) if plan["heard"] == "dialogue" else texts[0]
        again += said in split_of_text
        assert split_of_text.setdefault(said, plan["split"]) == plan["split"]
        assert plan["group"].split() == [word.lower() for word in re.findall(r"\w+", said)]
    assert again > 20 and set(split_of_text.values()) == set(SPLITS)


def test_what_is_said_does_not_depend_on_how_it_is_split():
    one, other = (
        [(p["id"], p["speed"], [turn[2] for turn in p["turns"]]) for p in planned(config, 20)]
        for config in (WorldConfig(speakers=6), WorldConfig(speakers=6, split_by="speaker", overlap_share=0.5))
    )
    assert one == other
