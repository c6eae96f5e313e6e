"""Weights inside of an adapter that another stage trained, and a language model whose answers are rows of their own."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from slm_jax.adapters.ctc import CTCAdapterConfig, CTCSegmentsConfig
from slm_jax.checkpoints.model_folder import save_model
from slm_jax.core.errors import UserError
from slm_jax.core.messages import Message, Speech, Text
from slm_jax.core.part_source import PartSource
from slm_jax.core.trees import flatten_by_path
from slm_jax.data.pipeline import PipelineConfig
from slm_jax.nn.relative_bias import RelativeBiasConfig
from slm_jax.parallel.sharding import unbox
from slm_jax.sequence_models.t5 import t5_v1_1
from slm_jax.systems.recipes.speech_aware import speech_aware_run
from slm_jax.text.templates import T5
from slm_jax.training.gradient_stage import trained
from slm_jax.training.loop import TrainConfig
from slm_jax.training.parts import load_frozen
from slm_jax.training.pre.ctc import CTCStageConfig
from tests.contracts.checks import random_params
from tests.training.small_answers import CORPUS, ENCODER, Tones, carry_out, context_of, planned, stage_of

LM = t5_v1_1(
    vocabulary=264,
    layers=1,
    width=16,
    heads=2,
    head_width=8,
    hidden=24,
    dropout=0.0,
    relative_bias=RelativeBiasConfig(buckets=8, max_distance=12),
)
CTC = CTCStageConfig(
    name="ctc",
    encoder=ENCODER,
    longest_s=0.5,
    longest_text=8,
    with_head=True,
    head_hidden=4,
    train=TrainConfig(steps=2),
    batches=PipelineConfig(batch=2),
)
HEAD = "adapter/segments/head"
SEGMENTS = CTCSegmentsConfig(vocabulary=CTC.example.classes, rule="spoken_frames", hidden=CTC.head_hidden)


def answers_of(folder: Any, head: str = HEAD, **changes: Any) -> Any:
    parts = (
        PartSource(path="frozen/encoder", source="stage:ctc", take="encoder", expect=ENCODER),
        PartSource(path=f"frozen/{head}", source="stage:ctc", take="head"),
        PartSource(path="frozen/lm", source=str(folder / "lm")),
    )
    settings = {"parts": parts, "adapter": CTCAdapterConfig(width=16, segments=SEGMENTS), "template": T5, "lora": None}
    return stage_of(folder, **{**settings, "length": 40, "written": 8, **changes})


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The run and the context of a CTC stage and two stages of answers, the second going on from the first."""
    folder = tmp_path_factory.mktemp("inside")
    ids = jnp.zeros((1, 2), jnp.int32)
    save_model(folder / "lm", LM, random_params(LM.make(), jax.random.key(3), ids, ids))
    first = answers_of(folder)
    run = speech_aware_run("inside", CORPUS, (CTC, first, first.replace(name="more", goes_on="answers")))
    context = context_of(folder / "run")
    for stage in run.stages:
        carry_out(stage, context)
    return run, context, folder


def test_the_head_of_the_stage_is_kept_as_it_is_and_nothing_of_it_is_trained(done):
    _, context, _ = done
    head = trained(context.run.stage("ctc"))[1]["params"]["head"]
    frozen = load_frozen(context.run, "more")["frozen"]
    jax.tree.map(np.testing.assert_array_equal, frozen["adapter"]["segments"]["head"], unbox(head))
    for name in ("answers", "more"):
        own = flatten_by_path(unbox(trained(context.run.stage(name))[1]["params"]))
        assert sorted(own) == ["adapter/map/bias", "adapter/map/kernel"]


def test_the_adapter_learns_and_the_second_stage_goes_on_from_it(done):
    _, context, _ = done
    first, second = (trained(context.run.stage(name))[1]["params"]["adapter"]["map"] for name in ("answers", "more"))
    moved = np.abs(np.asarray(unbox(first)["kernel"]) - np.asarray(unbox(second)["kernel"])).max()
    assert 1e-3 < moved < 0.1  # four steps of 0.01; kernels that are drawn anew lie further apart


def test_the_finished_run_answers(done):
    run, context, _ = done
    system = run.load(context)
    clip = Speech(Tones()[0]["samples"].astype(np.float32) / 32768, 16_000)
    asked = (Message("user", (clip, Text("Word?"))),)
    (row,) = system.log_prob([(*asked, Message("assistant", (Text("low"),)))])
    assert row.shape == (4,) and (row < 0).all()
    (reply,) = system.respond([asked], None, jax.random.key(0))
    assert len(reply.trace["ids"]) >= 1


def test_a_head_in_a_place_that_is_not_there_is_named(done):
    _, context, folder = done
    stage = answers_of(folder, "adapter/nowhere/head", name="wrong")
    with pytest.raises(UserError, match=r"adapter/nowhere/head.*no such part"):
        jax.eval_shape(planned(stage, context).initialise, jax.random.key(0))


@pytest.mark.parametrize(
    "changes, told", [({"written": None}, "written is None"), ({"targets": "all"}, "writes answers")]
)
def test_settings_that_do_not_go_with_an_encoder_decoder_are_named(done, changes, told):
    run, context, folder = done
    with pytest.raises(UserError, match=told):
        planned(answers_of(folder, name=f"wrong_{len(told)}", **changes), context)
