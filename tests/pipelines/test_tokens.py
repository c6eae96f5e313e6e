"""Tokens made in shards: those that a stage of the run makes itself, and a language model is trained on them."""

import json

import numpy as np
import pytest

from slm_jax.core.config import from_json
from slm_jax.core.errors import UserError
from slm_jax.data.corpus import SPLITS, open_corpus
from slm_jax.data.records import RecordSource
from slm_jax.data.shards.make import make_shards, read_work
from slm_jax.data.shards.workers import by_workers
from slm_jax.pipelines.tokens import TokenShardsConfig
from slm_jax.training.pre.token_folder import TokenFolderConfig
from slm_jax.training.run_folder import RunFolder
from slm_jax.training.stages import RunConfig, StageContext, run_stage
from slm_jax.training.tokenizer_source import TokenizerSourceConfig
from tests import artifacts
from tests.faults.units_and_lm import config as UNITS_AND_LM


def one(settings, folder, jobs):
    return by_workers(settings, folder, jobs, processes=1)


@pytest.fixture(scope="module")
def place(made_once, tmp_path_factory):
    """A copy of a run with units (its `run.json` with it) and its corpus' data."""
    made = made_once("units", artifacts.with_units)
    run = tmp_path_factory.mktemp("units") / "run"
    run.mkdir()
    (run / "stages").symlink_to(made / "run" / "stages")
    (run / "run.json").write_text(json.dumps(UNITS_AND_LM.to_json()))
    return run, made / "data"


@pytest.fixture(scope="module")
def made(place, tmp_path_factory):
    """The work, and its folder."""
    run, data = place
    source = TokenizerSourceConfig(source=str(run))
    work = TokenShardsConfig(corpus=UNITS_AND_LM.corpus, tokenizer=source, data_dir=str(data), per_shard=7)
    folder = tmp_path_factory.mktemp("tokens") / "out"
    make_shards(work, folder, one, progress=False)
    return work, folder


def test_they_are_those_of_the_stage(made, place):
    folder, stage = made[1], RunFolder(place[0]).stage("units")
    for split in SPLITS:
        found, wanted = RecordSource(folder / split), RecordSource(stage.path / "units" / split)
        assert len(found) == len(wanted) > 0 and found.schema == wanted.schema
        for i in range(len(wanted)):
            for name, value in wanted[i].items():
                np.testing.assert_array_equal(found[i][name], value)
    spec = from_json(json.loads((folder / "spec.json").read_text()))
    assert spec.units == 16 and read_work(folder).tokenizer == made[0].tokenizer


@pytest.mark.slow(seconds=20)
def test_a_language_model_is_trained_on_them(made, place, tmp_path):
    work, folder = made
    taken = TokenFolderConfig(name="units", folder=str(folder), source=work.tokenizer)
    lm = UNITS_AND_LM.stage("lm")
    run = RunConfig(
        name="taken", corpus=UNITS_AND_LM.corpus, stages=(taken, lm.replace(train=lm.train.replace(steps=2)))
    )
    context = StageContext(RunFolder(tmp_path / "run"), run.corpus, place[1], progress=False)
    for stage in run.stages:
        run_stage(stage, context)
    units = context.finished("units")
    assert not list(units.path.rglob("*.array_record")) and len(RecordSource(units.path / "units" / "dev")) > 0
    assert taken.spec(context).units == taken.planned_spec(run).units == 16
    item = open_corpus(run.corpus, place[1], "test")[0]
    (found,) = taken.tokenizer(context).encode_all([item["samples"].astype(np.float32) / 32768])
    np.testing.assert_array_equal(found, RecordSource(folder / "test")[0]["units"])


def test_what_does_not_fit_is_refused(made, place, tmp_path):
    work, folder = made
    taken = TokenFolderConfig(name="units", folder=str(folder), source=work.tokenizer)
    with pytest.raises(UserError, match=r"has no report.json"):
        taken.replace(folder=str(tmp_path)).check_outside(None)
    other = UNITS_AND_LM.corpus.replace(hours=0.01)
    (tmp_path / "out").mkdir()
    with pytest.raises(UserError, match="is not prepared"):
        make_shards(work.replace(corpus=other), tmp_path / "out", one, progress=False)
    with pytest.raises(UserError, match=r"stage is 'lm2'.*units, lm"):
        work.tokenizer.replace(stage="lm2").make()
    with pytest.raises(UserError, match="books"):
        work.tokenizer.replace(books=2).make()
    with pytest.raises(UserError, match="kinds"):
        make_shards(work.replace(kinds=("dialogue",)), tmp_path / "kinds", one, progress=False)
