"""Stages of a run: order, skipping, refusing, redoing; with stages that only write a file."""

from collections.abc import Sequence

import numpy as np
import pytest

from slm_jax.audio.files import write_wav
from slm_jax.core.errors import UserError
from slm_jax.data.corpus import FolderConfig
from slm_jax.training.run_folder import RunFolder
from slm_jax.training.stages import RunConfig, StageConfig, StageContext, dependents, read_run_config, run_stages


class WriteConfig(StageConfig):
    """Writes `text` and what the stages before it wrote."""

    text: str = "x"
    after: tuple[str, ...] = ()
    fails: bool = False

    @property
    def needs(self) -> tuple[str, ...]:
        return self.after

    def run(self, folder, context) -> Sequence[str]:
        if self.fails:
            raise OSError("no space left")
        read = "".join((context.finished(name).path / "out.txt").read_text() for name in self.after)
        (folder.path / "out.txt").write_text(read + self.text)
        return ["out.txt"]


@pytest.fixture
def corpus(tmp_path):
    tone = 0.1 * np.sin(np.arange(8000) * 0.05)
    for number in range(6):
        write_wav(tmp_path / "speech" / f"{number}.wav", tone * (1 + number), 16_000)
    return FolderConfig(path=str(tmp_path / "speech"), processes=1)


def chain(corpus, **changes):
    stages = (
        WriteConfig(name="a", text="a"),
        WriteConfig(name="b", text="b", after=("a",)),
        WriteConfig(name="c", text="c", after=("b",)),
        WriteConfig(name="d", text="d", after=("a",)),
    )
    return RunConfig(name="chain", corpus=corpus, stages=tuple(s.replace(**changes.get(s.name, {})) for s in stages))


def run(config, tmp_path, **options):
    context = StageContext(RunFolder(tmp_path / "run"), config.corpus, tmp_path / "data", progress=False)
    return [name for name, seconds in run_stages(config, context, **options) if seconds is not None]


def written(tmp_path, name):
    return (tmp_path / "run" / "stages" / name / "out.txt").read_text()


def test_stages_run_once_each_on_what_came_before(tmp_path, corpus):
    config = chain(corpus)
    assert run(config, tmp_path) == ["a", "b", "c", "d"]
    assert written(tmp_path, "c") == "abc"
    assert run(config, tmp_path) == []
    assert read_run_config(RunFolder(tmp_path / "run")) == config


def test_a_failed_stage_runs_again_and_the_done_ones_do_not(tmp_path, corpus):
    with pytest.raises(OSError, match="no space"):
        run(chain(corpus, c={"fails": True}), tmp_path)
    with pytest.raises(UserError, match=r"stages\.2\.fails: True -> False.*--redo"):
        run(chain(corpus), tmp_path)
    assert run(chain(corpus), tmp_path, redo=["c"]) == ["c", "d"]


def test_redo_takes_the_dependents_along_and_keeps_the_old(tmp_path, corpus):
    run(chain(corpus), tmp_path)
    changed = chain(corpus, b={"text": "B"})
    assert run(changed, tmp_path, redo=["b"]) == ["b", "c"]
    assert written(tmp_path, "c") == "aBc"
    assert written(tmp_path, "c.old1") == "abc"


def test_new_stages_join_a_run_and_changed_ones_do_not(tmp_path, corpus):
    config = chain(corpus)
    run(config, tmp_path)
    longer = config.replace(stages=(*config.stages, WriteConfig(name="e", text="e", after=("c",))))
    assert run(longer, tmp_path) == ["e"]
    assert written(tmp_path, "e") == "abce"
    assert len(read_run_config(RunFolder(tmp_path / "run")).stages) == 5
    with pytest.raises(UserError, match="another config"):
        run(config, tmp_path)
    with pytest.raises(UserError, match="another config"):
        run(longer.replace(stages=(*chain(corpus, b={"text": "other"}).stages, longer.stages[-1])), tmp_path)


def test_only_some_stages(tmp_path, corpus):
    assert run(chain(corpus), tmp_path, only=["a"]) == ["a"]
    with pytest.raises(UserError, match=r"'b'.*not done"):
        run(chain(corpus), tmp_path, only=["c"])
    with pytest.raises(UserError, match=r"stage 'bb' is not in this run.*did you mean 'b'"):
        run(chain(corpus), tmp_path, only=["bb"])


def test_dependents_are_found_through_others(corpus):
    assert dependents(chain(corpus), ["b"]) == ["b", "c"]
    assert dependents(chain(corpus), ["a"]) == ["a", "b", "c", "d"]


def test_a_stage_that_reads_a_later_one_or_a_double_name_is_refused(corpus):
    with pytest.raises(UserError, match="must stand before it"):
        RunConfig(name="x", corpus=corpus, stages=(WriteConfig(name="a", after=("b",)), WriteConfig(name="b")))
    with pytest.raises(UserError, match="name of its own"):
        RunConfig(name="x", corpus=corpus, stages=(WriteConfig(name="a"), WriteConfig(name="a")))


def test_a_dry_run_sees_few_examples(tmp_path, corpus):
    config = chain(corpus)
    run(config, tmp_path)
    context = StageContext(RunFolder(tmp_path / "run"), corpus, tmp_path / "data", dry_run=True)
    assert 0 < len(context.source("train")) <= 6
    assert context.lengths[-1] >= 8000


def test_a_folder_without_a_run_is_named(tmp_path):
    with pytest.raises(UserError, match=r"no run\.json"):
        read_run_config(RunFolder(tmp_path))
