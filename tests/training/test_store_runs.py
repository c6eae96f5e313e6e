"""A run folder in an object store: stages are begun, done, verified, refused and set aside as they are here."""

import pytest

from slm_jax.core.errors import UserError
from slm_jax.core.paths import as_path
from slm_jax.training.run_folder import RunFolder
from slm_jax.training.stages import StageContext, read_run_config, run_stages
from tests.core import memory_scheme
from tests.training.test_stages import chain, corpus

__all__ = ["corpus"]


@pytest.fixture
def store(tmp_path, monkeypatch):
    memory_scheme.clear()
    monkeypatch.setenv("SLM_JAX_CACHE", str(tmp_path / "cache"))
    return as_path("memory://bucket/run")


def run(config, store, data, **options):
    context = StageContext(RunFolder(store), config.corpus, data, progress=False)
    return [name for name, seconds in run_stages(config, context, **options) if seconds is not None]


def test_a_run_in_a_store(corpus, store, tmp_path):
    config, data = chain(corpus), tmp_path / "data"
    assert run(config, store, data) == ["a", "b", "c", "d"]
    assert (store / "stages" / "c" / "out.txt").read_text() == "abc"
    assert read_run_config(RunFolder(store)) == config
    assert run(config, store, data) == []
    with pytest.raises(UserError, match=r"memory://bucket/run was made with another config"):
        run(chain(corpus, b={"text": "B"}), store, data)
    assert run(chain(corpus, b={"text": "B"}), store, data, redo=["b"]) == ["b", "c"]
    assert (store / "stages" / "c" / "out.txt").read_text() == "aBc"
    assert (store / "stages" / "c.old1" / "out.txt").read_text() == "abc"
    stage = RunFolder(store).stage("c")
    stage.verify()
    (stage.path / "out.txt").write_text("abX")
    with pytest.raises(UserError, match=r"out.txt.*has changed"):
        stage.verify()
    assert (store / "kept" / "lengths.json").is_file()


def test_two_processes_of_a_machine_do_not_share_it(store):
    with RunFolder(store).lock(), pytest.raises(UserError, match="in use"), RunFolder(store).lock():
        pass
