"""Few recordings: which splits they get, and what is said of those that stay empty."""

from collections import Counter

import numpy as np
import pytest

from slm_jax.audio.files import write_wav
from slm_jax.core.errors import UserError
from slm_jax.data.corpora.filled_splits import filled
from slm_jax.data.corpus import FolderConfig, WorldConfig, open_corpus, prepare_corpus
from slm_jax.data.lengths import source_lengths
from slm_jax.data.passes import finite_batches
from slm_jax.data.prepare import find_prepared

SPLITS = ("train", "dev", "test")


def folder_of(path, count, seconds=0.2):
    rng = np.random.default_rng(0)
    for i in range(count):
        write_wav(path / f"{i}.wav", 0.1 * rng.normal(size=round(seconds * 16_000) + 160 * i), 16_000)
    return FolderConfig(path=str(path), processes=1)


@pytest.mark.parametrize("count", [1, 2, 3, 6, 20])
def test_from_three_items_on_every_split_has_one(tmp_path, count):
    config = folder_of(tmp_path / "speech", count)
    report = prepare_corpus(config, tmp_path / "data", progress=False)
    sources = {split: open_corpus(config, tmp_path / "data", split) for split in SPLITS}
    assert {split: len(source) for split, source in sources.items()} == report.accepted
    assert sum(report.accepted.values()) == count and report.accepted["train"] >= max(1, count // 2)
    assert sorted(source[i]["id"] for source in sources.values() for i in range(len(source))) == sorted(
        str(i) for i in range(count)
    )
    if count >= 3:
        assert min(report.accepted.values()) >= 1 and "is left out" not in report.to_text()
    else:
        assert "nothing in dev" in report.to_text()


def test_an_empty_split_is_an_empty_source(tmp_path):
    config = folder_of(tmp_path / "speech", 1)
    prepare_corpus(config, tmp_path / "data", progress=False)
    source = open_corpus(config, tmp_path / "data", "test")
    assert len(source) == 0 and source.ids == [] and source.seconds.shape == (0,)
    assert list(finite_batches(source, (16_000,), 4)) == [] and len(source_lengths(source, "samples")) == 0


def record(name, split="train", **others):
    return {"id": name, "split": split, "group": name} | others


def splits_after(records, config):
    moved = filled(records, config)
    return Counter(moved.get(one["id"], one["split"]) for one in records)


def test_big_corpora_and_stated_splits_stay(tmp_path):
    config = FolderConfig(path=str(tmp_path))
    big = [record(str(i), split) for i, split in enumerate(["train"] * 97 + ["dev", "test", "test"])]
    assert filled(big, config) == {}
    stated = [record(str(i), group="") for i in range(5)]
    assert filled(stated, config) == {}
    assert splits_after([*stated, record("a")], config) == {"train": 5, "test": 1}  # one that may move
    assert filled([record("a"), record("b")], config) == {}
    assert splits_after([record("a", "test"), record("b", "test")], config) == {"train": 1, "test": 1}


def test_a_share_of_none_stays_none_and_groups_are_not_torn(tmp_path):
    config = FolderConfig(path=str(tmp_path), dev_share=0.0)
    assert splits_after([record(str(i)) for i in range(4)], config) == {"train": 3, "test": 1}
    by_speaker = FolderConfig(path=str(tmp_path), split_by="speaker")
    records = [record(f"{who}{i}", group=who) for who in ("ann", "bob", "cyd", "dan") for i in range(3)]
    moved = filled(records, by_speaker)
    after = {
        split: {one["group"] for one in records if moved.get(one["id"], one["split"]) == split} for split in SPLITS
    }
    assert {split: len(speakers) for split, speakers in after.items()} == {"train": 2, "dev": 1, "test": 1}
    assert filled([record(f"ann{i}", group="ann") for i in range(5)], by_speaker) == {}


def test_the_order_of_items_does_not_decide(tmp_path):
    config = FolderConfig(path=str(tmp_path))
    records = [record(str(i)) for i in range(6)]
    assert filled(records, config) == filled(records[::-1], config) != {}


def test_an_unknown_kind_names_those_that_are_there(tmp_path):
    config = folder_of(tmp_path / "speech", 3)
    prepare_corpus(config, tmp_path / "data", progress=False)
    assert len(open_corpus(config, tmp_path / "data", "train", kinds=("recording",))) == 1
    with pytest.raises(UserError, match=r"kind is 'recordings': the corpus has recording.*did you mean 'recording'"):
        open_corpus(config, tmp_path / "data", "train", kinds=("recordings",))


def test_the_folders_of_corpora_that_exist_keep_their_names():
    """Taken from the version before rates and channels: what was prepared then is found now."""
    assert WorldConfig(hours=0.8).identity() == {
        "type": "data.corpora.settings.WorldConfig", "dev_share": 0.05, "test_share": 0.1, "hours": 0.8,
        "question_hours": 0.0, "dialogue_hours": 0.0, "seed": 0, "speakers": 1, "slowest": 0.9, "fastest": 1.15,
    }  # fmt: skip
    with pytest.raises(UserError, match="is not prepared"):
        find_prepared(WorldConfig(hours=0.8, rate_hz=24_000), "nowhere")
