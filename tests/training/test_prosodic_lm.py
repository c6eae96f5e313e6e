"""Three streams learnt together: what follows from a unit is found out, and a manner that is hidden is not."""

import numpy as np
import pytest

from slm_jax.assemblies.phonetic_tokenizer import MFCCFeaturesConfig
from slm_jax.assemblies.prosodic_tokenizer import ProsodyConfig
from slm_jax.core.config import from_json
from slm_jax.core.errors import UserError
from slm_jax.core.token_spec import single
from slm_jax.data.corpus import WorldConfig
from slm_jax.data.pipeline import PipelineConfig
from slm_jax.data.records import write_records
from slm_jax.quantizers.kmeans import KMeansConfig
from slm_jax.sequence_models.presets import pgslm, pgslm_continuous
from slm_jax.training.loop import TrainConfig
from slm_jax.training.metrics import read_metrics
from slm_jax.training.optimizer import OptimizerConfig
from slm_jax.training.pre.frame_units import FrameUnitsConfig
from slm_jax.training.pre.prosodic_lm import ProsodicLMConfig
from slm_jax.training.pre.prosody import ProsodyStageConfig
from slm_jax.training.run_folder import RunFolder
from slm_jax.training.stages import RunConfig, StageContext, run_stage
from slm_jax.training.token_stage import write_spec

UNITS = single("units", 6, 320, 16_000, columns=("units",), runs=("runs",), durations="durations")
SPEC = ProsodyConfig(longest=6, bins=3).spec(UNITS)
REALS = ProsodyConfig(continuous=("duration", "log_f0")).spec(UNITS)
SMALL = {"layers": 1, "width": 32, "heads": 2, "hidden": 48, "embed_scale": 1.0}
SMALL |= {"dropout": 0.0, "attention_dropout": 0.0}
STAGE = ProsodicLMConfig(
    name="lm",
    tokens="prosody",
    model=pgslm(6, durations=7, classes=4, **SMALL),
    length=16,
    train=TrainConfig(steps=60, evaluate_every=60),
    batches=PipelineConfig(batch=8),
    optimizer=OptimizerConfig(learning_rate=1e-2, warmup_steps=0),
)
CORPUS = WorldConfig(hours=0.01)


def row(rng, name):
    """Units at random; durations follow from them, and one class of pitch stays for all of an utterance."""
    runs, manner = rng.integers(6, size=int(rng.integers(8, 14))), int(rng.integers(1, 4))
    durations, f0_class = 1 + runs % 5, np.full(len(runs), manner)
    by_run = {"runs": runs, "durations": durations, "run_duration_class": durations, "run_f0_class": f0_class}
    return {
        "id": name,
        **{name: value.astype(np.int32) for name, value in by_run.items()},
        "units": np.repeat(runs, durations).astype(np.int32),
        "run_log_f0": (0.25 * (manner - 2) * np.ones(len(runs))).astype(np.float32),
    }


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A run whose tokens are there, for classes or for real numbers."""

    def make(spec):
        run, rng = RunFolder(tmp_path_factory.mktemp("prosodic") / "run"), np.random.default_rng(0)
        config, folder = ProsodyStageConfig(name="prosody", units="units"), run.stage("prosody")
        folder.begin(config, {})
        for split, count in (("train", 64), ("dev", 16), ("test", 2)):
            write_records(config.records(folder, split), [row(rng, f"{split}{i}") for i in range(count)])
        folder.finish(["units", write_spec(folder, spec)])
        return StageContext(run, CORPUS, run.path / "data", progress=False)

    return make


def nats(context, stage):
    run_stage(stage, context)
    *_, last = (line for line in read_metrics(context.finished(stage.name).path) if "evaluate/units_nats" in line)
    return [last[f"evaluate/{name}_nats"] for name in ("units", "duration", "log_f0")]


def test_it_finds_out_what_follows(made):
    units, duration, log_f0 = nats(made(SPEC), STAGE)
    assert 1.5 < units < 2.3, "units are drawn at random"
    assert duration < 0.2, "a duration follows from its unit"
    assert log_f0 < 0.5, "the manner is known from the second run on"


@pytest.mark.slow
def test_a_manner_that_cannot_be_read_is_not_found_out(made):
    stage = STAGE.replace(model=STAGE.model.replace(ignored=(2,)))
    assert nats(made(SPEC), stage)[2] > 0.9, "ln 3 is 1.1"


@pytest.mark.slow
def test_real_numbers_are_learnt_too(made):
    model = pgslm_continuous(6, **SMALL)
    sharp = tuple(None if grid is None else grid.replace(scale=0.1) for grid in model.grids)
    stage = STAGE.replace(model=model.replace(grids=sharp), train=TrainConfig(steps=200, evaluate_every=200))
    _, duration, log_f0 = nats(made(REALS), stage)
    assert duration < 1.0, "64 durations: 4.2 nats unless something is known"
    assert log_f0 < 5.0, "769 places: 6.6 nats unless something is known"


def test_its_config_survives_json_and_wants_streams_that_fit(made):
    assert from_json(STAGE.to_json()) == STAGE
    with pytest.raises(UserError, match=r"lm.model.streams is \(10, 11, 8\): .* the units have 4 special ids more"):
        STAGE.rows(ProsodyConfig(longest=30, bins=3).spec(UNITS))
    with pytest.raises(UserError, match=r"lm.model.grids is .* real numbers, and they alone, need a grid"):
        STAGE.replace(model=pgslm(6, durations=7, classes=4, **SMALL)).rows(REALS)
    with pytest.raises(UserError, match="this stage keeps no runs of units"):
        STAGE.rows(single("units", 6, 320, 16_000, columns=("units",)))


def test_it_is_planned_from_configs_alone():
    units = FrameUnitsConfig(name="units", features=MFCCFeaturesConfig(), kmeans=KMeansConfig(clusters=6))
    prosody = ProsodyStageConfig(name="prosody", units="units", prosody=ProsodyConfig(longest=6, bins=3))
    run = RunConfig(name="run", corpus=CORPUS, stages=(units, prosody, STAGE))
    outline = STAGE.replace(hidden=(0.0, 0.5, 0.5)).outline(run)
    assert {name: leaf.shape for name, leaf in outline.batch.items()} == {
        "ids": (8, 16, 3), "mask": (8, 16), "hidden": (8, 16, 3), "example": (8,)
    }  # fmt: skip
    assert outline.tokens == 8 * 16
