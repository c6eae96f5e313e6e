"""Who makes shards is one word; what they hold does not depend on it."""

import importlib.util
from functools import partial

import pytest

from slm_jax.core.errors import UserError
from slm_jax.data.shards.make import make_shards
from slm_jax.data.shards.workers import by_workers
from slm_jax.pipelines.beam import BEAM_RUNNERS
from slm_jax.pipelines.runner import RUNNERS, RunnerConfig
from tests.data.counting_work import CountingWork, bytes_of

BEAM = importlib.util.find_spec("apache_beam") is not None
WITHOUT = (
    "Apache Beam wants another protobuf and pyarrow than the rest: `make beam` runs these in an environment of its own"
)


def test_one_word_says_who(tmp_path):
    assert RUNNERS == ("workers", "direct", "dataflow", "flink", "spark")
    spread = RunnerConfig(workers=1).make()
    assert make_shards(CountingWork(per_shard=9), tmp_path / "out", spread, progress=False).made == 3
    with pytest.raises(UserError, match="did you mean 'flink'"):
        RunnerConfig(runner="flinc")
    with pytest.raises(UserError, match="are those of Beam"):
        RunnerConfig(options=("project=a",))


@pytest.mark.skipif(BEAM, reason="Apache Beam is here")
@pytest.mark.parametrize("runner", BEAM_RUNNERS)
def test_without_beam_it_says_what_is_missing(runner):
    with pytest.raises(UserError, match=r"requirements-beam.txt"):
        RunnerConfig(runner=runner).make()


@pytest.mark.skipif(not BEAM, reason=WITHOUT)
def test_beam_makes_the_same_bytes_and_only_what_is_missing(tmp_path):
    work = CountingWork(per_shard=4)
    make_shards(work, tmp_path / "plain", partial(by_workers, processes=1), progress=False)
    spread = RunnerConfig(runner="direct", workers=1).make()
    report = make_shards(work, tmp_path / "beam", spread, progress=False)
    assert report.made == 6 and bytes_of(tmp_path / "beam") == bytes_of(tmp_path / "plain")
    (tmp_path / "beam" / "accounts" / "train" / "00003.json").unlink()
    assert make_shards(work, tmp_path / "beam", spread, progress=False).made == 1
    assert bytes_of(tmp_path / "beam") == bytes_of(tmp_path / "plain")


@pytest.mark.skipif(not BEAM, reason=WITHOUT)
def test_what_fails_in_beam_is_raised(tmp_path):
    spread = RunnerConfig(runner="direct", workers=1).make()
    with pytest.raises(Exception, match="cannot do item 9"):
        make_shards(CountingWork(per_shard=4, stops=9), tmp_path / "out", spread, progress=False)
