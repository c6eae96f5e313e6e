import json

import pytest

from slm_jax.checkpoints.integrity import write_json
from slm_jax.data.corpus import WorldConfig
from slm_jax.evaluation.section import JudgeSettings, Lacking
from slm_jax.judges.losses import LossesJudge, loss_curves
from slm_jax.training.run_folder import RunFolder
from slm_jax.training.stages import RunConfig, StageConfig, StageContext


class NothingConfig(StageConfig):
    """A stage of which only the name counts."""


@pytest.fixture
def context(tmp_path):
    run = RunFolder(tmp_path)
    config = RunConfig(name="run", corpus=WorldConfig(), stages=(NothingConfig(name="a"), NothingConfig(name="b")))
    write_json(tmp_path / "run.json", config.to_json())
    return StageContext(run, config.corpus, tmp_path)


def test_dev_stands_beside_training(context, tmp_path):
    folder = context.run.stage("b").path
    folder.mkdir(parents=True)
    lines = [
        {"step": 1, "lm/loss": 3.0, "grad_norm": 1.0},
        {"step": 2, "lm/loss": None},
        {"step": 2, "evaluate/nats_per_unit": 2.5, "evaluate_s": 0.1},
        {"step": 4, "lm/loss": 2.0, "evaluate/nats_per_unit": 2.25},
    ]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    curves = {"lm/loss": ([1, 4], [3.0, 2.0]), "dev nats per unit": ([2, 4], [2.5, 2.25])}
    assert loss_curves(context) == {"b": curves}
    (plot,) = LossesJudge().judge(None, context, JudgeSettings()).plots
    plot.draw(tmp_path / "plot.png")
    assert (tmp_path / "plot.png").stat().st_size > 1000


def test_nothing_trained_nothing_shown(context):
    with pytest.raises(Lacking, match="no stage of this run was trained"):
        LossesJudge().judge(None, context, JudgeSettings())
