"""What a stage says of its batches without data is what its batches are."""

import dataclasses
import json
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from slm_jax.core.errors import UserError
from slm_jax.data.records import write_records
from slm_jax.parallel.sharding import unbox
from slm_jax.systems.speech import gslm, twist
from slm_jax.training.pre import durations
from slm_jax.training.pre.frame_units import FrameUnitsConfig, units_row
from slm_jax.training.run_folder import RunFolder
from slm_jax.training.stages import StageContext
from slm_jax.training.state import TrainState

RUN = gslm.tiny()
UTTERANCES, SAMPLES = 40, 24_000


class Recordings:
    """Utterances of noise by one speaker."""

    def __len__(self) -> int:
        return UTTERANCES

    def __getitem__(self, index: int) -> dict[str, Any]:
        samples = np.random.default_rng(index).integers(-9, 9, SAMPLES).astype(np.int16)
        return {"id": str(index), "speaker": "one", "samples": samples}


class Context(StageContext):
    """Reads noise instead of a corpus."""

    def source(self, split: str) -> Any:
        return Recordings()


@pytest.fixture(scope="module")
def context(tmp_path_factory):
    """A run folder in which the stages that others read are done, with drawn units and pitch."""
    run = RunFolder(tmp_path_factory.mktemp("run"))
    rng = np.random.default_rng(0)
    for name in ("mfcc", "units"):
        stage, folder = RUN.stage(name), run.stage(name)
        folder.begin(stage, {})
        for split in ("train", "dev"):
            drawn = [units_row(str(i), rng.integers(0, 100, SAMPLES // 320)) for i in range(UTTERANCES)]
            write_records(FrameUnitsConfig.records(folder, split), drawn)
        folder.finish(["units"])
    for name in ("hubert", "vocoder"):
        run.stage(name).begin(RUN.stage(name), {})
        run.stage(name).finish([])
    folder = run.stage("pitch")
    folder.begin(RUN.stage("pitch"), {})
    tracks = [{"id": str(i), "speaker": "one", "f0_hz": np.full(120, 100, np.float32)} for i in range(UTTERANCES)]
    write_records(folder.path / "f0" / "train", tracks)
    voice = {"log_f0_mean": 4.6, "log_f0_std": 0.1, "speakers": ["one"]}
    (folder.path / "voice.json").write_text(json.dumps(voice))
    folder.finish(["f0", "voice.json"])
    return Context(run, RUN.corpus, run.path / "data", progress=False)


@pytest.mark.parametrize("name", ["hubert", "lm", "vocoder", "durations"])
def test_shapes_are_those_of_a_real_batch(name, context, monkeypatch):
    monkeypatch.setattr(durations, "trained", lambda folder: (None, {"params": {"generator": {}}}))
    stage = RUN.stage(name)
    outline, plan = stage.outline(RUN), stage.plan(context.run.stage(name), context)
    try:
        real = next(plan.batches)
    finally:
        plan.batches.close()
    told = {name: (shape.shape, shape.dtype) for name, shape in outline.batch.items()}
    assert told == {name: (value.shape, value.dtype) for name, value in real.items()}
    assert [player.name for player in outline.players] == [player.name for player in plan.players]
    shapes = [jax.eval_shape(each.initialise, jax.random.key(0)) for each in (outline, plan)]
    assert jax.tree.all(jax.tree.map(lambda a, b: a.shape == b.shape, *shapes))


def test_the_figure_on_held_out_speech_is_that_of_the_weights_that_are_served(context):
    plan = RUN.stage("lm").plan(context.run.stage("lm"), context)
    plan.batches.close()
    key = jax.random.key(0)
    drawn = unbox(jax.jit(plan.initialise)(key))
    blank = jax.tree.map(jnp.zeros_like, drawn["params"])  # finds all tokens alike
    state = TrainState(step=jnp.int32(0), variables=drawn, opt={}, ema={"params": blank}, key=key)
    alike = plan.evaluate(state, None)["nats_per_unit"]
    assert alike == pytest.approx(np.log(len(blank["tokens"]["embedding"])), rel=1e-5)
    assert plan.evaluate(dataclasses.replace(state, ema=None), None)["nats_per_unit"] != pytest.approx(alike, rel=1e-3)


def test_speech_and_tokens_of_a_batch():
    hubert, lm, vocoder = (RUN.stage(name).outline(RUN) for name in ("hubert", "lm", "vocoder"))
    assert hubert.speech_s == 4 * 4.0 and hubert.tokens == 4 * 199
    assert lm.tokens == 4 * 256 and lm.speech_s == pytest.approx(4 * 256 * 0.02)
    assert vocoder.speech_s == pytest.approx(8 * 32 * 0.02)


def test_units_of_a_slower_encoder_last_longer():
    run = twist.published("350m")
    outline = run.stage("lm").outline(run)
    assert outline.speech_s == pytest.approx(outline.tokens * 0.04)


def test_a_published_stage_that_starts_from_weights_has_an_outline():
    run = twist.published("7b", start_from="nowhere")  # all others: tests/systems/test_every_system.py
    outline = run.stage("lm").outline(run)
    assert jax.tree.leaves(jax.eval_shape(outline.initialise, jax.random.key(0)))
    assert outline.tokens > 0 < outline.speech_s


def test_stages_say_which_model_they_trained_or_that_there_is_none(context):
    models = {name: RUN.stage(name).planned_model(RUN) for name in ("hubert", "lm", "vocoder")}
    assert models["hubert"] == RUN.stage("hubert").model.encoder and models["lm"] == RUN.stage("lm").model
    assert models["vocoder"].units == 100
    folder = context.run.stage("hubert")
    assert RUN.stage("hubert").model_of(folder) == (models["hubert"], "encoder")
    durations = RUN.stage("durations")
    with pytest.raises(UserError, match="stage 'durations' is a DurationStageConfig: it has no decoder, encoder"):
        durations.model_of(folder)
    with pytest.raises(UserError, match="stage 'durations' is a DurationStageConfig: its config is known when"):
        durations.planned_model(RUN)


def test_what_a_stage_of_tokens_will_make_is_what_it_made(context):
    for name in ("mfcc", "units"):
        stage = RUN.stage(name)
        assert stage.planned_spec(RUN) == stage.spec(context)
        assert stage.spec(context).describe() == "units 100; every 320 samples at 16,000 Hz"


def test_a_vocoder_of_another_frame_rate_is_refused(context):
    vocoder = RUN.stage("vocoder")
    shorter = vocoder.replace(model=vocoder.model.replace(generator=vocoder.model.generator.replace(istft_hop=40)))
    with pytest.raises(UserError, match=r"hop of vocoder\.model is 160: stage 'units' has a unit every 320 samples"):
        shorter.outline(RUN)


def test_a_shape_that_only_the_weights_know_needs_them():
    run = twist.published("350m", start_from="nowhere")
    lm = dataclasses.replace(run.stage("lm"), model=None)
    with pytest.raises(UserError, match="there is no such folder"):
        lm.outline(run)
