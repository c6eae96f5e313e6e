"""Speech that a run folder keeps: judging and prompting work when corpus and recordings are gone."""

import dataclasses
import json
import shutil

import numpy as np
import pytest

from slm_jax.audio.files import write_wav
from slm_jax.core.errors import UserError
from slm_jax.core.messages import Turn
from slm_jax.data.corpus import FolderConfig, ManifestConfig, WorldConfig
from slm_jax.data.records import RecordSource, write_records
from slm_jax.training import run_folder
from slm_jax.training.held_out import held_out
from slm_jax.training.kept import KeptSpeechConfig, keep_speech, kept_folder
from slm_jax.training.run_folder import RunFolder
from slm_jax.training.stages import (
    RunConfig,
    StageContext,
    judging_context,
    read_run_config,
    require_corpus,
    require_form,
    run_stages,
)


@pytest.fixture
def corpus(tmp_path):
    rng = np.random.default_rng(0)
    for number in range(12):
        write_wav(tmp_path / "speech" / f"{number}.wav", 0.1 * rng.normal(size=8000 + 800 * number), 16_000)
    return FolderConfig(path=str(tmp_path / "speech"), processes=1, test_share=0.4)


def finished_run(corpus, tmp_path):
    """The config and folder of a run without stages, after `train`."""
    config, run = RunConfig(name="empty", corpus=corpus, stages=()), RunFolder(tmp_path / "run")
    assert list(run_stages(config, context_of(config, run, tmp_path))) == []
    return config, run


def context_of(config, run, tmp_path):
    return StageContext(run, config.corpus, tmp_path / "data", progress=False)


def lose(tmp_path):
    for name in ("data", "speech"):
        shutil.rmtree(tmp_path / name)


def test_the_test_split_is_there_when_data_and_recordings_are_gone(corpus, tmp_path):
    config, run = finished_run(corpus, tmp_path)
    whole = context_of(config, run, tmp_path)
    source, lengths = whole.source("test"), whole.lengths
    wanted = [source[i] for i in range(len(source))]
    assert len(wanted) > 1
    lose(tmp_path)
    context = judging_context(config, run, tmp_path / "data")
    assert context.lengths == lengths
    found = held_out(context, 100)
    assert [item["id"] for item in found] == [item["id"] for item in wanted]
    for item, reference in zip(found, wanted, strict=True):
        np.testing.assert_array_equal(item["samples"], reference["samples"])
        assert item["speaker"] == reference["speaker"]
    assert not (tmp_path / "data").exists()
    with pytest.raises(UserError, match="keeps no train speech"):  # without phones nothing would read it
        context.source("train")
    with pytest.raises(UserError, match="at least one longer than 100 s"):
        held_out(context, 3, longer_than_s=100.0)


def test_an_older_run_folder_keeps_it_at_the_first_judging_or_says_why_not(corpus, tmp_path):
    config, run = finished_run(corpus, tmp_path)
    shutil.rmtree(kept_folder(run).path)
    shutil.rmtree(tmp_path / "data")
    ids = [item["id"] for item in held_out(judging_context(config, run, tmp_path / "data"), 100)]
    assert len(ids) > 1
    shutil.rmtree(kept_folder(run).path)
    lose(tmp_path)
    with pytest.raises(UserError, match="keeps no speech, and its corpus is gone"):
        judging_context(config, run, tmp_path / "data")


def test_damage_is_named_and_a_half_written_table_is_written_again(corpus, tmp_path):
    config, run = finished_run(corpus, tmp_path)
    folder = kept_folder(run)
    table = folder.path / "speech" / "test"
    shard = max(table.glob("*.array_record"), key=lambda path: path.stat().st_size)
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 1
    shard.write_bytes(content)
    with pytest.raises(UserError, match=rf"{shard.name}.*has changed"):
        held_out(judging_context(config, run, tmp_path / "data"), 1)
    (folder.path / "done.json").unlink()  # as if it had been killed while it wrote
    assert len(held_out(judging_context(config, run, tmp_path / "data"), 1)) == 1


def test_of_a_long_corpus_every_nth_utterance_is_kept_and_training_speech_where_there_are_phones(tmp_path):
    config = RunConfig(name="world", corpus=WorldConfig(hours=0.02, processes=1, test_share=0.4), stages=())
    run = RunFolder(tmp_path / "run")
    context = context_of(config, run, tmp_path)
    require_corpus(config, context)
    limit = KeptSpeechConfig(minutes=float(context.source("train").seconds.sum()) / 60 / 3)
    keep_speech(run, context.source, context.lengths, "hash", limit)
    kept = dataclasses.replace(context, kept=True).source("train")
    train = context.source("train")
    assert len(kept) == -(-len(train) // 3)
    for place in range(len(kept)):
        item, reference = kept[place], train[3 * place]
        assert item["phones"] == reference["phones"]
        for name in ("samples", "phone_ids", "phone_start_s", "phone_end_s", "f0_hz"):
            np.testing.assert_array_equal(item[name], reference[name])


def test_messages_and_extra_are_kept_and_columns_are_a_choice(tmp_path):
    turns = [Turn("user", "hello", start_s=0.0, end_s=0.2), Turn("assistant", "hi", start_s=0.3, end_s=0.5)]
    rows = []
    for i in range(4):
        write_wav(tmp_path / "speech" / f"{i}.wav", 0.1 * np.random.default_rng(i).normal(size=8000), 16_000)
        told = {"messages": [turn.to_json() for turn in turns], "mood": {"glad": [i]}}
        rows.append({"audio_filepath": f"{i}.wav", "split": "test"} | told)
    manifest = tmp_path / "speech" / "manifest.jsonl"
    manifest.write_text("".join(json.dumps(row) + "\n" for row in rows))
    config, run = finished_run(ManifestConfig(path=str(manifest), processes=1), tmp_path)
    item = judging_context(config, run, tmp_path / "data").source("test")[2]
    assert item["messages"] == tuple(turns) and item["extra"] == {"mood": {"glad": [2]}}
    bare = config.replace(keeps=KeptSpeechConfig(columns=("lang",)))
    (tmp_path / "bare").mkdir()
    other = RunFolder(tmp_path / "bare" / "run")
    assert list(run_stages(bare, StageContext(other, bare.corpus, tmp_path / "data", progress=False))) == []
    item = judging_context(bare, other, tmp_path / "data").source("test")[2]
    assert "extra" not in item and item["messages"] == tuple(turns) and item["lang"] == "" and "samples" in item


def test_kinds_and_splits_that_a_run_keeps(tmp_path):
    corpus = WorldConfig(hours=0.004, question_hours=0.004, processes=1, test_share=0.3, dev_share=0.3)
    keeps = KeptSpeechConfig(splits=("dev", "test"), kinds=("sentence", "question_answer"))
    config, run = RunConfig(name="world", corpus=corpus, stages=(), keeps=keeps), RunFolder(tmp_path / "run")
    whole = context_of(config, run, tmp_path)
    assert list(run_stages(config, whole)) == []
    assert read_run_config(run) == config
    kept = judging_context(config, run, tmp_path / "data")
    for split in ("dev", "test"):
        for kinds in (None, ("sentence",), ("question_answer",), ("sentence", "question_answer")):
            source, wanted = kept.source(split, kinds), whole.source(split, kinds)
            assert [source[i]["id"] for i in range(len(source))] == wanted.ids
    assert kept.source("test", ("question_answer",))[0]["messages"][1].role == "assistant"
    for context in (kept, whole):
        with pytest.raises(UserError, match="kind is 'sentences': the corpus has question_answer, sentence"):
            context.source("test", ("sentences",))
    with pytest.raises(UserError, match="keeps no train speech"):
        kept.source("train")
    with pytest.raises(UserError, match="splits is"):
        KeptSpeechConfig(splits=("eval",))


def test_what_is_kept_is_read_through_once(corpus, tmp_path, monkeypatch):
    config, run = finished_run(corpus, tmp_path)
    context, read = judging_context(config, run, tmp_path / "data"), []
    original = run_folder.file_hash
    monkeypatch.setattr(run_folder, "file_hash", lambda path: read.append(path) or original(path))
    for _ in range(3):
        context.source("test")
    files = [path for path in kept_folder(run).path.rglob("*") if path.name not in ("stage.json", "done.json")]
    assert len(read) == sum(path.is_file() for path in files)


def test_an_older_folder_without_the_newer_settings_still_loads(corpus, tmp_path):
    """As 8a958d1 left it: `minutes` alone in the settings, no `items.json`, no `messages`, no `keeps` in run.json."""
    config, run = finished_run(corpus, tmp_path)
    folder = kept_folder(run)
    rows = list(RecordSource(folder.path / "speech" / "test"))
    for row in rows:
        del row["messages"], row["extra"]
    write_records(folder.path / "speech" / "test", rows)
    (folder.path / "items.json").unlink()
    folder.finish(["speech", "lengths.json"])
    begun = json.loads((folder.path / "stage.json").read_text())
    begun["config"] = {"type": begun["config"]["type"], "minutes": 20.0}
    (folder.path / "stage.json").write_text(json.dumps(begun))
    written = json.loads((run.path / "run.json").read_text())
    del written["keeps"]
    (run.path / "run.json").write_text(json.dumps(written))
    assert read_run_config(run) == config
    assert list(run_stages(config, context_of(config, run, tmp_path))) == []
    source = judging_context(config, run, tmp_path / "data").source("test", ("recording",))
    assert len(source) == len(rows) > 1
    assert source[1]["messages"] == (Turn("user", None, start_s=0.0, end_s=float(rows[1]["seconds"])),)
    with pytest.raises(UserError, match="the corpus has recording"):
        judging_context(config, run, tmp_path / "data").source("test", ("sentence",))


def test_a_corpus_without_held_out_speech_keeps_an_empty_table(tmp_path):
    write_wav(tmp_path / "speech" / "0.wav", 0.1 * np.random.default_rng(0).normal(size=8000), 16_000)
    config, run = finished_run(FolderConfig(path=str(tmp_path / "speech"), processes=1), tmp_path)
    lose(tmp_path)
    assert len(judging_context(config, run, tmp_path / "data").source("test")) == 0


def test_shapes_of_passes_follow_the_rate_and_stages_say_what_they_need(corpus, tmp_path):
    config = RunConfig(name="empty", corpus=corpus.replace(rate_hz=24_000), stages=())
    context = context_of(config, RunFolder(tmp_path / "run"), tmp_path)
    require_corpus(config, context)
    longest = max(len(source[i]["samples"]) for source in [context.source("train")] for i in range(len(source)))
    assert longest > 16_000 and longest <= context.lengths[-1] and context.lengths[-1] % 2400 == 0
    require_form("units", corpus, 16_000)
    with pytest.raises(UserError, match="rate_hz of the corpus is 24000: stage 'units' works at 16000 Hz"):
        require_form("units", config.corpus, 16_000)
    with pytest.raises(UserError, match="channels of the corpus is 2: stage 'units' reads one channel"):
        require_form("units", corpus.replace(channels=2), 16_000)
