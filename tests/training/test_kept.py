"""Speech that a run folder keeps: judging and prompting work when corpus and recordings are gone."""

import dataclasses
import shutil

import numpy as np
import pytest

from slm_jax.audio.files import write_wav
from slm_jax.core.errors import UserError
from slm_jax.data.corpus import FolderConfig, WorldConfig
from slm_jax.training.held_out import held_out
from slm_jax.training.kept import KeptSpeechConfig, keep_speech, kept_folder
from slm_jax.training.run_folder import RunFolder
from slm_jax.training.stages import RunConfig, StageContext, judging_context, require_corpus, run_stages


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
