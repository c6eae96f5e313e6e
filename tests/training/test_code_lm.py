"""Codes of two books, learnt in any order: what follows is found out, and what is drawn follows the same rule."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from slm_jax.core.config import from_json
from slm_jax.core.errors import UserError
from slm_jax.core.token_spec import Codebook, TokenSpec
from slm_jax.core.types import Codes
from slm_jax.data.corpus import WorldConfig
from slm_jax.data.pipeline import PipelineConfig
from slm_jax.data.records import write_records
from slm_jax.evaluation.codes import code_log_probs
from slm_jax.generation.by_scheme import continue_codes
from slm_jax.generation.sampling import SamplingConfig
from slm_jax.quantizers.codebooks import CodebookConfig
from slm_jax.quantizers.residual import ResidualVQConfig
from slm_jax.schemes.coarse_first import CoarseFirst
from slm_jax.schemes.delay import Delay
from slm_jax.schemes.flattened import Flattened
from slm_jax.schemes.parallel import Parallel, TemporalDepth
from slm_jax.sequence_models.depth import DepthConfig
from slm_jax.sequence_models.multi_stream import MultiStreamConfig
from slm_jax.sequence_models.presets import llama
from slm_jax.sequence_models.temporal_depth import TemporalDepthConfig
from slm_jax.training.gradient_stage import trained
from slm_jax.training.loop import TrainConfig
from slm_jax.training.metrics import read_metrics
from slm_jax.training.optimizer import OptimizerConfig
from slm_jax.training.pre.code_lm import CodeLMConfig
from slm_jax.training.pre.codec_tokens import CodecTokensConfig
from slm_jax.training.run_folder import RunFolder
from slm_jax.training.stages import RunConfig, StageContext, run_stage
from slm_jax.training.token_stage import write_spec
from tests.codecs import CODECS

SPEC = TokenSpec(
    codebooks=(Codebook(name="coarse", size=8), Codebook(name="fine", size=6)),
    hop=320,
    rate_hz=16_000,
    columns=("codes_0", "codes_1"),
)
BODY = llama("7b", vocabulary=1, layers=2, width=32, heads=2, kv_heads=2, hidden=48, tied_head=True)
MODEL = MultiStreamConfig(streams=(8, 6), body=BODY, blanks=True)
DEEP = TemporalDepthConfig(temporal=MODEL.replace(heads=0), depth=DepthConfig(width=24, layers=1, heads=2, hidden=32))
STAGE = CodeLMConfig(
    name="lm",
    tokens="codes",
    model=MODEL,
    scheme=Delay(delays=(0, 1)),
    frames=10,
    train=TrainConfig(steps=60, evaluate_every=60),
    batches=PipelineConfig(batch=8),
    optimizer=OptimizerConfig(learning_rate=1e-2, warmup_steps=0),
)
CASES = {
    "delay": STAGE,
    "temporal and depth": STAGE.replace(model=DEEP, scheme=TemporalDepth()),
    "parallel": STAGE.replace(scheme=Parallel()),
    "interleaved": STAGE.replace(scheme=Flattened()),
    "coarse first": STAGE.replace(scheme=CoarseFirst(coarse=1, chunk=2)),
}
QUICK = ("delay", "temporal and depth")
CORPUS = WorldConfig(hours=0.01)


def counted(rng, frames):
    """Coarse codes that count, by a draw at each frame whether they rest; fine ones that follow from those."""
    coarse = (rng.integers(8) + np.cumsum(rng.random(frames) < 0.8)) % 8
    return np.stack([coarse, coarse * 5 % 6], axis=1).astype(np.int32)


@pytest.fixture(scope="module")
def context(tmp_path_factory):
    run = RunFolder(tmp_path_factory.mktemp("codes") / "run")
    config, folder, rng = (
        CodecTokensConfig(name="codes", source="stage:codec"),
        run.stage("codes"),
        np.random.default_rng(0),
    )
    folder.begin(config, {})
    for split, count in (("train", 48), ("dev", 12), ("test", 2)):
        rows = [dict(zip(SPEC.columns, counted(rng, 12 - 4 * (i % 3)).T, strict=True)) for i in range(count)]
        write_records(config.records(folder, split), [{"id": str(i), **row} for i, row in enumerate(rows)])
    folder.finish(["units", write_spec(folder, SPEC)])
    return StageContext(run, CORPUS, run.path / "data", progress=False)


@pytest.mark.parametrize(
    "name", [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow(seconds=15)) for name in CASES]
)
def test_what_follows_is_learnt_in_every_order_and_written_in_it(name, context):
    steps = STAGE.train.steps if name in QUICK else 150  # who writes a code at each step has more places to tell apart
    train = STAGE.train.replace(steps=steps, evaluate_every=steps)
    stage = CASES[name].replace(name="lm_" + name.replace(" ", "_"), train=train)
    run_stage(stage, context)
    folder = context.run.stage(stage.name)
    found = [line for line in read_metrics(folder.path) if "evaluate/nats_per_code" in line][-1]
    step = 0.2 * np.log(5) + 0.8 * np.log(1.25)
    least = 0.5 * (step + (np.log(8) - step) * 3 / 22)  # fine codes are certain, 3 of 22 coarse ones are the first
    alone = 1.0 if name == "parallel" else 0.0  # there the fine code does not know the coarse one of its frame
    assert found["evaluate/nats_per_code"] < least + 0.2 + 0.3 * alone
    model, params = stage.model.make(), trained(folder)[1]["params"]
    prompt = Codes(jnp.asarray(counted(np.random.default_rng(5), 4))[None], jnp.ones((1, 4), bool))
    greedy = SamplingConfig(max_new=1, temperature=0.0)
    made = np.asarray(continue_codes(model, params, prompt, 9, stage.scheme, jax.random.key(0), greedy).ids)[0]
    assert np.mean(made[4:, 0] == (made[3:-1, 0] + 1) % 8) > 0.7
    assert alone or np.mean(made[:, 1] == made[:, 0] * 5 % 6) > 0.7


@pytest.mark.parametrize("name", ["delay", "coarse first"])
def test_its_outline_is_what_it_trains_and_its_config_comes_back(name):
    books = ResidualVQConfig(width=12, books=2, codebook=CodebookConfig(size=8, width=12))
    codec = CODECS["over spectra"].replace(quantizer=books)
    tokens = CodecTokensConfig(name="codes", source="nowhere", expect=codec)
    stage = CASES[name].replace(model=MODEL.replace(streams=(8, 8)))
    run = RunConfig(name="run", corpus=CORPUS, stages=(tokens, stage))
    assert from_json(run.to_json()) == run
    spec = tokens.planned_spec(run)
    item = dict(zip(spec.columns, (np.arange(8), np.arange(8) % 6), strict=True))
    made = stage.rows(spec).make()(item, np.random.default_rng(0))
    outlined = stage.outline(run).batch
    for field, value in made.items():
        assert (outlined[field].shape, outlined[field].dtype) == ((8, *value.shape), value.dtype)
    assert outlined.keys() == {*made, "example"}
    assert made["mask"].sum() == 1 + len(stage.scheme.table(8, 2))


def test_the_chain_rule_holds_over_entries_in_order():
    """Under temporal + depth all entries of a step add up to one probability of the step."""
    model = DEEP.make()
    ids = jnp.asarray(counted(np.random.default_rng(1), 4))[None]
    params = model.init(jax.random.key(0), ids)["params"]
    pairs = np.stack(np.meshgrid(np.arange(8), np.arange(6), indexing="ij"), -1).reshape(-1, 2)
    sequences = [np.concatenate([np.full((1, 2), -2), ids[0, :2], pair[None]]).astype(np.int32) for pair in pairs]
    total = np.exp([scores[-1].sum() for scores in code_log_probs(model, params, sequences, 4)]).sum()
    np.testing.assert_allclose(total, 1.0, rtol=1e-4)


def test_what_does_not_fit_is_refused(context):
    with pytest.raises(UserError, match="scheme is 'TemporalDepth'"):
        STAGE.replace(scheme=TemporalDepth())
    assert STAGE.replace(model=DEEP).scheme == STAGE.scheme, "books that are late may be written in order, too"
    wrong = STAGE.replace(name="wrong", model=MODEL.replace(streams=(8, 7)))
    with pytest.raises(UserError, match="makes books of"):
        run_stage(wrong, context)
    other = STAGE.replace(name="other", scheme=Delay(delays=(0, 1, 2)))
    with pytest.raises(UserError, match="codebooks is 2: there are 3 delays"):
        run_stage(other, context)
