"""Texts spoken in shards: a corpus of spoken instructions, whoever speaks, whatever else is spoken."""

import json

import numpy as np
import pytest

from slm_jax.core.errors import UserError
from slm_jax.core.messages import conversation
from slm_jax.data.corpus import TaskCorpusConfig, WorldConfig, open_corpus
from slm_jax.data.examples.speech_tasks import AnsweredTaskConfig
from slm_jax.data.examples.spoken_tasks import SpeakersConfig
from slm_jax.data.passes import float_samples
from slm_jax.data.shards.make import make_shards
from slm_jax.data.shards.workers import by_workers
from slm_jax.pipelines.speech import SpokenShardsConfig
from slm_jax.pipelines.voices import SystemVoiceConfig, WorldVoiceConfig
from tests.data.counting_work import bytes_of
from tests.pipelines.speaking_run import HummingRun

LINES = (
    '{"id": "a", "text": "Name two birds.", "answer": "A robin and a crow."}',
    '{"id": "b", "instruction": "Say hello.", "output": "Hello!", "split": "test"}',
    '{"text": "Good morning."}',
    "no json",
    '{"id": "a", "text": "Again."}',
    '{"id": "c", "text": "12 %"}',
)


def one(settings, folder, jobs):
    return by_workers(settings, folder, jobs, processes=1)


@pytest.fixture
def texts(tmp_path):
    path = tmp_path / "texts.jsonl"
    path.write_text("\n".join(LINES) + "\n")
    return path


@pytest.fixture
def humming(tmp_path):
    run = tmp_path / "humming"
    run.mkdir()
    config = HummingRun(name="humming", corpus=WorldConfig(), stages=())
    (run / "run.json").write_text(json.dumps(config.to_json()))
    return SystemVoiceConfig(run=str(run))


def items_of(folder, split="train", rate_hz=16_000):
    source = open_corpus(TaskCorpusConfig(path=str(folder), rate_hz=rate_hz), "nowhere", split)
    return {item["id"]: item for item in map(source.__getitem__, range(len(source)))}


def test_a_system_speaks(texts, humming, tmp_path):
    work = SpokenShardsConfig(texts=str(texts), voice=humming, per_shard=2)
    report = make_shards(work, tmp_path / "out", one, progress=False)
    assert report.left == {"bad_line": 2, "not_spoken": 1} and sum(report.rows.values()) == 3
    train = items_of(tmp_path / "out")
    assert train["a"]["kind"] == "instruction" and train["text-3"]["kind"] == "spoken"
    assert len(train["a"]["samples"]) == 16_000 * len("Nametwobirds") // 100 and train["a"]["speaker"] == "humming"
    item = items_of(tmp_path / "out", "test")["b"]
    asked = AnsweredTaskConfig().conversation(item, 16_000, np.random.default_rng(0))
    assert asked == conversation(item["messages"], float_samples(item["samples"]), 16_000) or asked[-1].text == "Hello!"
    assert item["text"] == "Say hello." and asked[0].kinds == {"speech"}


def test_what_is_said_depends_on_nothing_else(texts, humming, tmp_path):
    work = SpokenShardsConfig(texts=str(texts), voice=humming)
    make_shards(work, tmp_path / "one", one, progress=False)
    make_shards(work.replace(per_shard=1), tmp_path / "two", one, progress=False)
    first, second = items_of(tmp_path / "one"), items_of(tmp_path / "two")
    for name, item in first.items():
        np.testing.assert_array_equal(item["samples"], second[name]["samples"])
    make_shards(work, tmp_path / "again", one, progress=False)
    assert bytes_of(tmp_path / "again") == bytes_of(tmp_path / "one")
    louder = make_shards(work.replace(voice=humming.replace(seed=1)), tmp_path / "other", one, progress=False)
    assert louder.rows == {"train": 2, "dev": 0, "test": 1}
    assert not np.array_equal(items_of(tmp_path / "other")["a"]["samples"], first["a"]["samples"])


def test_the_world_speaks(texts, tmp_path):
    voice = WorldVoiceConfig(speakers=SpeakersConfig(count=2))
    work = SpokenShardsConfig(texts=str(texts), voice=voice, rate_hz=8_000)
    make_shards(work, tmp_path / "out", one, progress=False)
    item = items_of(tmp_path / "out", "test", 8_000)["b"]
    assert 0.4 < item["seconds"] < 2 and item["speaker"] in ("world-0", "world-1")
    assert len(item["samples"]) == round(8_000 * item["seconds"])


def test_who_cannot_speak_is_refused(texts, tmp_path):
    with pytest.raises(UserError, match="no such file"):
        make_shards(SpokenShardsConfig(texts=str(tmp_path / "none")), tmp_path / "out", one, progress=False)
    run = tmp_path / "silent"
    run.mkdir()
    with pytest.raises(UserError, match=r"it has no run.json"):
        SystemVoiceConfig(run=str(run)).make()
