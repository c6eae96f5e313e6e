"""The unit LM stage, stopped half-way: it goes on with the vocabulary it began with and with no other."""

import shutil

import numpy as np
import pytest

from slm_jax.assemblies.phonetic_tokenizer import MFCCFeaturesConfig, unit_spec
from slm_jax.checkpoints.manager import Checkpoints, restore_params
from slm_jax.core.errors import UserError
from slm_jax.data.corpus import WorldConfig
from slm_jax.data.pipeline import PipelineConfig
from slm_jax.data.records import RecordSource, write_records
from slm_jax.evaluation.scoring import nats_per_token
from slm_jax.quantizers.kmeans import KMeansConfig
from slm_jax.text.vocabulary import Vocabulary
from slm_jax.training.gradient_stage import trained
from slm_jax.training.loop import TrainConfig
from slm_jax.training.metrics import read_metrics
from slm_jax.training.optimizer import OptimizerConfig
from slm_jax.training.pre import unit_lm
from slm_jax.training.pre.frame_units import FrameUnitsConfig, units_row
from slm_jax.training.pre.pitch import PitchStageConfig
from slm_jax.training.pre.unit_lm import UnitLMConfig, unit_vocabulary
from slm_jax.training.run_folder import RunFolder
from slm_jax.training.stages import StageContext, run_stage
from slm_jax.training.token_stage import write_spec
from tests.shapes import DECODER

CORPUS = WorldConfig(hours=0.01)
LM = UnitLMConfig(
    name="lm",
    units="units",
    model=DECODER,
    row_length=32,
    train=TrainConfig(steps=4, checkpoint_every_steps=2),
    batches=PipelineConfig(batch=2),
    optimizer=OptimizerConfig(warmup_steps=0),
)


def units_stage(run, clusters):
    """A finished units stage with drawn units."""
    config = FrameUnitsConfig(name="units", features=MFCCFeaturesConfig(), kmeans=KMeansConfig(clusters=clusters))
    folder, rng = run.stage("units"), np.random.default_rng(clusters)
    shutil.rmtree(folder.path, ignore_errors=True)
    folder.begin(config, {})
    for split in ("train", "dev", "test"):
        rows = [units_row(str(i), rng.integers(0, clusters, size=40)) for i in range(8)]
        write_records(config.records(folder, split), rows)
    folder.finish(["units"])


@pytest.fixture(scope="module")
def stopped(tmp_path_factory):
    """A run whose stage `lm` stopped after two of four steps on sixteen units."""
    run = RunFolder(tmp_path_factory.mktemp("stopped") / "run")
    units_stage(run, 16)
    run_stage(LM, StageContext(run, CORPUS, run.path / "data", progress=False))
    folder = run.stage("lm")
    shutil.rmtree(Checkpoints(folder.path / "checkpoints").path(4))
    (folder.path / "done.json").unlink()
    return run


@pytest.fixture
def half_trained(stopped, tmp_path):
    """The context of a copy of it."""
    shutil.copytree(stopped.path, tmp_path / "run")
    return StageContext(RunFolder(tmp_path / "run"), CORPUS, tmp_path / "data", progress=False)


def begin_anew(context):
    """What the stage is made from, recorded again: only its checkpoints remember the old."""
    folder = context.run.stage("lm")
    (folder.path / "stage.json").unlink()
    folder.begin(LM, {"units": context.finished("units").artifact_hash()})
    return folder


def test_it_goes_on_with_the_same(half_trained):
    assert run_stage(LM, half_trained) > 0
    assert Checkpoints(half_trained.run.stage("lm").path / "checkpoints").latest_step() == 4


def test_what_is_measured_while_training_is_what_will_be_served(half_trained):
    """With a slow copy the nats that are logged are those of the copy, as `trained` hands it out."""
    stage = LM.replace(name="averaged", train=LM.train.replace(ema_decay=0.5, seed=3))
    assert run_stage(stage, half_trained) > 0
    folder = half_trained.run.stage("averaged")
    units = RecordSource(stage_records(half_trained, "dev"))
    rows = [stage.example(unit_vocabulary(16)).sequence(units[i]["runs"]) for i in range(len(units))]
    served, fast = trained(folder)[1]["params"], restore_params(folder.path / "checkpoints").trees["params"]
    slow, quick = (nats_per_token(DECODER.make(), params, rows) for params in (served, fast))
    logged = [line["evaluate/nats_per_unit"] for line in read_metrics(folder.path) if "evaluate/nats_per_unit" in line]
    assert logged[-1] == pytest.approx(slow, abs=1e-6) and abs(slow - quick) > 1e-4


def stage_records(context, split):
    return FrameUnitsConfig.records(context.finished("units"), split)


def test_other_units_are_refused_before_anything_runs(half_trained):
    before = half_trained.finished("units").artifact_hash()
    units_stage(half_trained.run, 24)
    after = half_trained.finished("units").artifact_hash()
    with pytest.raises(UserError, match=rf"consumed\.units: {before} -> {after}"):
        run_stage(LM, half_trained)


def test_a_checkpoint_of_another_vocabulary_is_refused_with_both_shown(half_trained):
    units_stage(half_trained.run, 24)
    folder = begin_anew(half_trained)
    with pytest.raises(UserError, match="checkpoint of step 2") as refused:
        LM.run(folder, half_trained)
    told = str(refused.value)
    assert "[['units', 16]] -> [['units', 24]]" in told
    hashes = [Vocabulary(ranges=(("units", count),)).content_hash() for count in (16, 24)]
    assert f"vocabulary_hash: {hashes[0]} -> {hashes[1]}" in told
    assert Checkpoints(folder.path / "checkpoints").latest_step() == 2


def test_tokens_of_another_rate_are_refused_with_both_shown(half_trained):
    units = half_trained.finished("units")
    write_spec(units, unit_spec(16, hop=640))
    with pytest.raises(UserError, match=r"meta\.tokens\.hop: 320 -> 640"):
        run_stage(LM, half_trained)


def test_a_stage_that_makes_no_tokens_is_refused_by_name(half_trained):
    folder = half_trained.run.stage("pitch")
    folder.begin(PitchStageConfig(name="pitch"), {})
    folder.finish([])
    with pytest.raises(UserError, match="stage 'pitch' is a PitchStageConfig: it makes no tokens"):
        LM.replace(units="pitch").plan(half_trained.run.stage("other"), half_trained)


def test_another_layout_of_as_many_ids_is_refused_by_its_hash(half_trained, monkeypatch):
    def reordered(units):
        return Vocabulary(specials=("<pad>", "</s>", "<s>"), ranges=(("units", units),))

    hashes = [vocabulary.content_hash() for vocabulary in (unit_lm.unit_vocabulary(16), reordered(16))]
    monkeypatch.setattr(unit_lm, "unit_vocabulary", reordered)  # as a later version of the program might have it
    with pytest.raises(UserError, match=rf"vocabulary_hash: {hashes[0]} -> {hashes[1]}") as refused:
        run_stage(LM, half_trained)
    assert "['<pad>', '<s>', '</s>'] -> ['<pad>', '</s>', '<s>']" in str(refused.value)
