"""Tables and corpora in an object store: the same rows as here, copied once, damage named."""

import numpy as np
import pytest

from slm_jax.audio.files import write_wav
from slm_jax.core.errors import UserError
from slm_jax.core.paths import as_path, copy_file, entries, files_below
from slm_jax.data.corpus import FolderConfig, open_corpus, prepare_corpus
from slm_jax.data.records import INDEX_FILE, RecordSource, write_records
from tests.core import memory_scheme
from tests.data.test_records import assert_same_row, rows


@pytest.fixture
def store(tmp_path, monkeypatch):
    memory_scheme.clear()
    monkeypatch.setenv("SLM_JAX_CACHE", str(tmp_path / "cache"))
    return as_path("memory://bucket")


def test_a_table_is_written_read_and_replaced(store, tmp_path):
    for seed in (0, 1):  # the second takes the place of the first, whose shards are copied here already
        expected = rows(11, seed)
        write_records(store / "table", iter(expected), shards=3)
        source = RecordSource(store / "table")
        for i, row in enumerate(expected):
            assert_same_row(source[i], row)
        np.testing.assert_array_equal(source.lengths("units"), [len(row["units"]) for row in expected])
        source.verify()
    write_records(tmp_path / "table", iter(rows(11, 1)), shards=3)
    assert RecordSource(tmp_path / "table").content_hash == source.content_hash


def test_damage_in_a_store_names_the_shard(store):
    write_records(store / "table", iter(rows(6)), shards=2)
    shard = store / "table" / "00001.array_record"
    data = shard.read_bytes()
    shard.write_bytes(data[:-1])
    with pytest.raises(UserError, match=rf"memory://bucket/table/00001.array_record.* {len(data) - 1}"):
        RecordSource(store / "table")
    shard.write_bytes(data[:-1] + b"\1")
    with pytest.raises(UserError, match=r"00001.array_record.*checksum"):
        RecordSource(store / "table").verify()
    (store / "table" / INDEX_FILE).unlink()
    with pytest.raises(UserError, match=r"table is 'memory://bucket/table'"):
        RecordSource(store / "table")


def test_a_prepared_corpus_is_copied_to_a_store_and_read_there(store, tmp_path):
    tone = 0.1 * np.sin(np.arange(8000) * 0.05)
    for number in range(6):
        write_wav(tmp_path / "speech" / f"{number}.wav", tone * (1 + number), 16_000)
    config = FolderConfig(path=str(tmp_path / "speech"), processes=1)
    with pytest.raises(UserError, match="data_dir is 'memory://bucket/data': the corpus is not there"):
        prepare_corpus(config, store / "data", progress=False)
    prepare_corpus(config, tmp_path / "data", progress=False)
    for file in files_below(tmp_path / "data"):
        copy_file(file, store / "data" / file.relative_to(tmp_path / "data").as_posix())
    assert prepare_corpus(config, "memory://bucket/data", progress=False).cached
    here, there = (open_corpus(config, place, "train") for place in (tmp_path / "data", "memory://bucket/data"))
    assert there.ids == here.ids
    for i in range(len(here)):
        np.testing.assert_array_equal(there[i]["samples"], here[i]["samples"])
    copied = [path.name for path in files_below(tmp_path / "cache")]
    assert sum("array_record" in name for name in copied) == 1, "of the split that was read"
    assert entries(store / "data")
