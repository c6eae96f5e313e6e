"""Models of a cascade: each learns its pass from two tables, and given units get the codes that belong to them."""

import jax
import numpy as np
import pytest

from slm_jax.core.config import from_json
from slm_jax.core.errors import UserError
from slm_jax.core.token_spec import Codebook, TokenSpec
from slm_jax.data.corpus import WorldConfig
from slm_jax.data.pipeline import PipelineConfig
from slm_jax.data.records import write_records
from slm_jax.generation.by_cascade import Model, write_cascade
from slm_jax.generation.sampling import SamplingConfig
from slm_jax.nn.relative_bias import RelativeBiasConfig
from slm_jax.sequence_models.presets import audiolm_stage
from slm_jax.systems.speech.audiolm import WRITES
from slm_jax.training.gradient_stage import trained
from slm_jax.training.loop import TrainConfig
from slm_jax.training.metrics import read_metrics
from slm_jax.training.pre.cascade_lm import CascadeLMConfig, CascadeTokensConfig
from slm_jax.training.pre.codec_tokens import CodecTokensConfig
from slm_jax.training.run_folder import RunFolder
from slm_jax.training.stages import StageContext, run_stage
from slm_jax.training.token_stage import write_spec

UNITS, CODES, NAMES = 6, 12, ("codes_0", "codes_1", "codes_2")
SEMANTIC = TokenSpec(codebooks=(Codebook(name="units", size=UNITS),), hop=640, rate_hz=16_000, columns=("units",))
ACOUSTIC = TokenSpec(
    codebooks=tuple(Codebook(name=name, size=CODES) for name in NAMES), hop=320, rate_hz=16_000, columns=NAMES
)
MODEL = audiolm_stage(
    48,
    layers=2,
    width=32,
    heads=2,
    hidden=64,
    relative_bias=RelativeBiasConfig(buckets=16, max_distance=32, bidirectional=False),
    dropout=0.0,
    attention_dropout=0.0,
    activation_dropout=0.0,
)
TOKENS = CascadeTokensConfig(coarse=2, chunk_s=0.16)
STAGE = CascadeLMConfig(
    name="semantic",
    tokens=TOKENS,
    number=0,
    model=MODEL,
    longest_s=0.24,
    train=TrainConfig(steps=160, evaluate_every=160),
    batches=PipelineConfig(batch=8),
    optimizer=WRITES.replace(learning_rate=5e-3, warmup_steps=5),
)
STAGES = (
    STAGE,
    STAGE.replace(name="coarse", number=1),
    STAGE.replace(name="fine", number=2, longest_s=0.16, train=TrainConfig(steps=300, evaluate_every=300)),
)
CORPUS = WorldConfig(hours=0.01)


def spoken_of(units):
    """Two frames of a unit, which say that they are the first and the second; other books follow from the first."""
    first = 2 * np.repeat(units, 2) + np.tile([0, 1], len(units))
    return {"codes_0": first, "codes_1": 5 * first % CODES, "codes_2": 7 * first % CODES}


def utterance(rng):
    """Units that go up by one or by two, beginning anywhere."""
    return (rng.integers(UNITS) + np.cumsum(rng.integers(1, 3, rng.integers(4, 8)))) % UNITS


@pytest.fixture(scope="module")
def context(tmp_path_factory):
    run, rng = RunFolder(tmp_path_factory.mktemp("cascade") / "run"), np.random.default_rng(0)
    folders = {name: run.stage(name) for name in ("units", "codes")}
    config = {name: CodecTokensConfig(name=name, source="stage:codec") for name in folders}
    for name, folder in folders.items():
        folder.begin(config[name], {})
    for split, count in (("train", 64), ("dev", 8), ("test", 2)):
        said = [utterance(rng).astype(np.int32) for _ in range(count)]
        rows = {"units": [{"units": one} for one in said], "codes": [spoken_of(one) for one in said]}
        for name, some in rows.items():
            typed = [{"id": str(i), **{k: v.astype(np.int32) for k, v in row.items()}} for i, row in enumerate(some)]
            write_records(config[name].records(folders[name], split), typed)
    for name, spec in (("units", SEMANTIC), ("codes", ACOUSTIC)):
        folders[name].finish(["units", write_spec(folders[name], spec)])
    return StageContext(run, CORPUS, run.path / "data", progress=False)


@pytest.mark.slow(seconds=25)
def test_each_pass_is_learnt_and_given_units_get_their_codes(context):
    for stage in STAGES:
        run_stage(stage, context)
    figures = [
        [line for line in read_metrics(context.run.stage(stage.name).path) if "evaluate/" in str(line)][-1]
        for stage in STAGES
    ]
    assert 0.5 < figures[0]["evaluate/units_nats"] < np.log(UNITS) - 0.3  # two may follow, and where it ends is chance
    assert all(figures[1][f"evaluate/{name}_nats"] < 0.35 for name in NAMES[:2])
    assert figures[2]["evaluate/codes_2_nats"] < 0.35
    again = STAGES[1].replace(
        name="again", start_from="coarse", train=TrainConfig(steps=1, evaluate_every=1), optimizer=WRITES
    )
    run_stage(again, context)
    (line,) = [line for line in read_metrics(context.run.stage("again").path) if "evaluate/" in str(line)]
    assert line["evaluate/codes_0_nats"] == pytest.approx(figures[1]["evaluate/codes_0_nats"], abs=0.1)
    models = [Model(s.model.make(), trained(context.run.stage(s.name))[1]["params"]) for s in STAGES]
    cascade, rng = TOKENS.found(context), np.random.default_rng(9)
    likeliest, said = [SamplingConfig(max_new=20, temperature=0.0, min_new=1)] * 3, [utterance(rng) for _ in range(12)]
    given = [{"units": one[:6]} for one in said]
    made = write_cascade(cascade, models, given, jax.random.key(0), likeliest, mode="acoustic")
    for name in NAMES:
        wanted = [spoken_of(books["units"])[name] for books in given]
        right = [np.mean(one[name] == values) for one, values in zip(made, wanted, strict=True)]
        assert np.mean(right) > 0.75, right  # one slip of time moves all that follows


def test_configs_come_back_and_what_does_not_fit_is_refused(context):
    assert from_json(STAGE.to_json()) == STAGE and STAGE.needs == ("units", "codes")
    assert STAGE.replace(start_from="first").needs == ("units", "codes", "first")
    small = STAGE.replace(name="small", model=MODEL.replace(vocabulary=8))
    with pytest.raises(UserError, match=r"small.model.vocabulary is 8: stages units and codes need 9 ids"):
        run_stage(small, context)
    long = STAGES[2].replace(name="long", longest_s=0.24)
    with pytest.raises(UserError, match="frames is 12: a row of this pass is a chunk of at most 8"):
        run_stage(long, context)
