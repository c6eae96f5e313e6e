"""Work in shards: the same bytes in however many goes, and every item accounted for."""

import json

import numpy as np
import pytest

from slm_jax.core.errors import UserError
from slm_jax.core.paths import as_path, files_below
from slm_jax.data.records import RecordSource
from slm_jax.data.shards import shard
from slm_jax.data.shards.make import make_shards, read_shard_report, read_work
from slm_jax.data.shards.workers import by_workers
from tests.core import memory_scheme
from tests.data.counting_work import CountingWork, bytes_of

WORK = CountingWork(per_shard=4)


def one(settings, folder, jobs):
    return by_workers(settings, folder, jobs, processes=1)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A folder that nothing disturbed."""
    folder = tmp_path_factory.mktemp("whole") / "out"
    make_shards(WORK, folder, one, progress=False)
    return folder


def test_rows_of_all_shards_form_one_table(whole):
    table = RecordSource(whole / "train")
    assert len(table) == 17  # of 18 items one is left out
    assert [row["id"] for row in (table[i] for i in range(17))] == [f"train-{i}" for i in range(18) if i != 5]
    np.testing.assert_array_equal(table[-1]["values"], np.arange(17))
    np.testing.assert_array_equal(table.lengths("values"), [i for i in range(18) if i != 5])
    table.verify()
    assert len(RecordSource(whole / "dev")) == 0 and len(RecordSource(whole / "test")) == 3
    assert json.loads((whole / "index.json").read_text())["test"] == {"id": ["test-0", "test-1", "test-2"]}
    assert json.loads((whole / "extra.json").read_text()) == {"more": 1}


def test_who_was_left_out_is_told(whole):
    report = read_shard_report(whole)
    assert report.rows == {"train": 17, "dev": 0, "test": 3} and report.shards == {"train": 5, "dev": 0, "test": 1}
    assert report.left == {"odd": 1} and report.first == (("train-5", "odd", "it is five"),)
    (line,) = (whole / "rejected.jsonl").read_text().splitlines()
    assert json.loads(line) == {"item": "train-5", "reason": "odd", "detail": "it is five"}
    assert "train-5: it is five" in report.to_text() and json.dumps(report.to_json())
    assert read_work(whole) == WORK


def test_it_goes_on_with_what_is_missing(whole, tmp_path):
    """Stopped in the third shard; one shard is cut short meanwhile and half of another lies about."""
    out, made = tmp_path / "out", []

    def stopping(settings, folder, jobs):
        for job in jobs[:2]:
            yield shard.do_shard(settings, folder, job)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make_shards(WORK, out, stopping, progress=False)
    assert not (out / "report.json").exists()
    with pytest.raises(UserError, match="not finished"):
        read_shard_report(out)
    damaged = out / "train" / "00001.array_record"
    damaged.write_bytes(damaged.read_bytes()[:-1])
    (out / "train" / ".train-00002.array_record.77.partial").write_bytes(b"half")

    def counting(settings, folder, jobs):
        made.extend(job.number for job in jobs if job.table == "train")
        return one(settings, folder, jobs)

    report = make_shards(WORK, out, counting, progress=False)
    assert made == [1, 2, 3, 4] and report.kept == 1 and report.made == 5
    assert bytes_of(out) == bytes_of(whole)
    again = make_shards(WORK, out, counting, progress=False)
    assert len(made) == 4 and again.made == 0 and again.rows == report.rows


def test_other_work_is_refused(whole):
    with pytest.raises(UserError, match=r"other work \(work.per_shard: 4 -> 5\)"):
        make_shards(WORK.replace(per_shard=5), whole, one, progress=False)
    with pytest.raises(UserError, match=r"inputs.read: 1 -> 2"):
        make_shards(WORK.replace(reads=2), whole, one, progress=False)
    make_shards(WORK.replace(place="elsewhere"), whole, one, progress=False)  # a free field may differ


def test_a_worker_that_fails_stops_it_and_says_why(tmp_path):
    with pytest.raises(UserError, match="cannot do item 9"):
        make_shards(WORK.replace(stops=9), tmp_path / "out", one, progress=False)
    assert len(list((tmp_path / "out" / "train").glob("*.array_record"))) == 2
    with pytest.raises(UserError, match="a worker has failed"):
        make_shards(WORK, tmp_path / "idle", lambda settings, folder, jobs: iter(()), progress=False)


def test_in_a_store_it_is_the_same(whole, tmp_path, monkeypatch):
    memory_scheme.clear()
    monkeypatch.setenv("SLM_JAX_CACHE", str(tmp_path / "cache"))
    out = as_path("memory://bucket/out")
    assert make_shards(WORK, out, one, progress=False).made == 6
    (out / "accounts" / "train" / "00002.json").unlink()
    assert make_shards(WORK, out, one, progress=False).made == 1
    found = {path.relative_to(out).as_posix(): path.read_bytes() for path in files_below(out)}
    here = {path.relative_to(whole).as_posix(): path.read_bytes() for path in files_below(whole) if path.name != "lock"}
    assert found == here
    np.testing.assert_array_equal(RecordSource(out / "train")[16]["values"], np.arange(17))
