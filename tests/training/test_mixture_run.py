"""A run on two corpora whose shares the config of a stage says: units of both, then a language model on the mixture."""

import numpy as np
import pytest

from slm_jax.assemblies.phonetic_tokenizer import MFCCFeaturesConfig
from slm_jax.audio.files import write_wav
from slm_jax.cli.options import override_config
from slm_jax.core.errors import UserError
from slm_jax.data.corpus import FolderConfig, NamedCorpusConfig, SeveralCorporaConfig
from slm_jax.data.examples.unit_text import UnitTextConfig
from slm_jax.data.mixture import MixtureConfig, PartConfig
from slm_jax.data.pipeline import PipelineConfig
from slm_jax.data.records import RecordSource
from slm_jax.quantizers.kmeans import KMeansConfig
from slm_jax.training.loop import TrainConfig
from slm_jax.training.optimizer import OptimizerConfig
from slm_jax.training.pre.frame_units import FrameUnitsConfig
from slm_jax.training.pre.unit_lm import UnitLMConfig
from slm_jax.training.run_folder import RunFolder
from slm_jax.training.stages import RunConfig, StageContext, run_stages
from tests.shapes import DECODER


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """(config, context) of a run on forty sounds of noise and twenty of tones; its stages are done."""
    folder = tmp_path_factory.mktemp("mixture")
    rng = np.random.default_rng(0)
    for number in range(40):
        write_wav(folder / "noise" / f"{number}.wav", 0.1 * rng.standard_normal(6000), 16_000)
    for number in range(20):
        write_wav(folder / "tones" / f"{number}.wav", 0.1 * np.sin(np.arange(6000) * 0.01 * (1 + number)), 16_000)
    corpora = [FolderConfig(path=str(folder / name), processes=1, dev_share=0.2) for name in ("noise", "tones")]
    config = RunConfig(
        name="mixture",
        corpus=SeveralCorporaConfig(
            corpora=tuple(NamedCorpusConfig(name=c.path.rpartition("/")[2], corpus=c) for c in corpora)
        ),
        stages=(
            FrameUnitsConfig(
                name="units", features=MFCCFeaturesConfig(), kmeans=KMeansConfig(clusters=8, iterations=3)
            ),
            UnitLMConfig(
                name="lm",
                units="units",
                model=DECODER,
                row_length=64,
                train=TrainConfig(steps=2),
                batches=PipelineConfig(batch=2),
                optimizer=OptimizerConfig(warmup_steps=0),
                mixture=MixtureConfig(
                    parts=(
                        PartConfig(name="noise", corpus="noise", weight=1.0),
                        PartConfig(name="tones", corpus="tones", weight=2.0),
                        PartConfig(name="frames", weight=1.0, example=UnitTextConfig(units="units", longest=32)),
                    )
                ),
            ),
        ),
    )
    context = StageContext(RunFolder(folder / "run"), config.corpus, folder / "data", progress=False)
    assert [name for name, _ in run_stages(config, context)] == ["units", "lm"]
    return config, context


def test_units_of_both_corpora_and_what_is_kept_of_them(run):
    _, context = run
    units = RecordSource(FrameUnitsConfig.records(context.finished("units"), "train"))
    source = context.source("train")
    assert [units[i]["id"] for i in range(len(units))] == source.ids
    assert {name.partition("/")[0] for name in source.ids} == {"noise", "tones"}
    places = context.places("train")
    assert len(places["noise"]) + len(places["tones"]) == len(units)


def test_the_shares_are_those_of_the_config(run):
    config, context = run
    batches = config.stage("lm").plan(context.run.stage("lm"), context).batches
    counts = np.zeros(3)
    ends = np.cumsum([*(len(places) for places in context.places("train").values()), len(context.source("train"))])
    for _ in range(300):
        # of a packed row the first example is named, and every row begins with one drawn from the mixture
        counts += np.bincount(np.searchsorted(ends, next(batches)["example"], side="right"), minlength=3)
    batches.close()
    assert counts.sum() == 600
    assert (counts > 60).all()


def test_parts_are_overridden_by_name_and_a_wrong_corpus_is_named(run):
    config, context = run
    changed = override_config(config, ["--lm.mixture.parts.tones.weight", "5"])
    assert changed.stage("lm").mixture.parts[1].weight == 5.0
    wrong = override_config(config, ["--lm.mixture.parts.tones.corpus", "tone"]).stage("lm")
    with pytest.raises(UserError, match=r"'tone': the run has noise, tones.*did you mean 'tones'"):
        wrong.plan(context.run.stage("lm"), context)
