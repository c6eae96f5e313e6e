"""The stage that learns to answer: what is trained, kept and left out, where it may begin and go on."""

import re
import shutil

import jax
import numpy as np
import pytest

from slm_jax.adapters.joined import JoinedConfig
from slm_jax.checkpoints.manager import Checkpoints
from slm_jax.checkpoints.model_folder import load_model, save_model
from slm_jax.core.errors import UserError
from slm_jax.core.trees import flatten_by_path, together
from slm_jax.data.mixture import MixtureConfig, PartConfig
from slm_jax.data.pipeline import PipelineConfig
from slm_jax.nn.lora import LoRAConfig
from slm_jax.objectives.answers import Answers
from slm_jax.serving.speech_aware import SpeechAwareSystem
from slm_jax.text.learnt_tokens import LearntTokensConfig
from slm_jax.text.marked_tokens import SpecialsConfig
from slm_jax.text.templates import CHATML
from slm_jax.text.tokenizers import TokenizerFileConfig
from slm_jax.training.gradient_stage import CHECKPOINTS, trained
from slm_jax.training.loop import TrainConfig
from slm_jax.training.metrics import read_metrics
from slm_jax.training.optimizer import OptimizerConfig
from slm_jax.training.parts import load_frozen
from slm_jax.training.pre.text_lm import TextLMConfig
from slm_jax.training.run_folder import RunFolder
from slm_jax.training.stage_tokens import StageTokensConfig, tokens_of
from tests.assemblies.small_speech_aware import asked, voice
from tests.text.subwords import write_subwords
from tests.training.small_answers import (
    CORPUS,
    ENCODER,
    LM,
    TASKS,
    MeasuringContext,
    assert_same,
    carry_out,
    context_of,
    planned,
    run_of,
    stage_of,
    weights,
    with_part,
    write_parts,
)

STILL = OptimizerConfig(learning_rate=1e-12, schedule="constant")
ONE = TrainConfig(steps=1)


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    folder = tmp_path_factory.mktemp("parts")
    write_parts(folder)
    config, params = load_model(folder / "lm")
    save_model(folder / "other", config, jax.tree.map(lambda leaf: leaf + 1, params))
    return folder


@pytest.fixture(scope="module")
def told():
    return []


@pytest.fixture(scope="module")
def run(tmp_path_factory, parts, told):
    """A run folder whose stage `answers` is done."""
    folder = tmp_path_factory.mktemp("run")
    carry_out(stage_of(parts), context_of(folder, told, MeasuringContext))
    return folder


def moved(found, wanted):
    return {path for path in wanted if np.abs(found[path] - wanted[path]).max() > 1e-6}


def test_what_is_trained_is_kept_and_nothing_else(run, parts):
    found = weights(run)
    assert {path.rsplit("/", 1)[0] for path in found} == {
        "params/adapter/map",
        "lora/lm/blocks/layers/attention/query/default",
        "lora/lm/blocks/layers/attention/value/default",
    }
    stored = Checkpoints(run / "stages" / "answers" / CHECKPOINTS).read_json(4, "arrays")
    assert not any("encoder" in path or "tokens" in path for item in stored.values() for path in item)
    assert all(np.abs(leaf).max() > 0 for path, leaf in found.items() if path.endswith("/b")), "LoRA has moved"


def test_the_log_says_what_was_left_out_and_how_it_goes(run, told):
    reason = "of 8 train items are left out: 1 (no answer); 1 (a clip is longer than 0.375 s)"
    assert f"stage answers, heard: {reason}" in told
    assert "stage answers, written: of 8 train items are left out: 1 (no answer)" in told
    lines = read_metrics(run / "stages" / "answers")
    assert {"loss", "nll", "accuracy", "grad_norm"} <= set(lines[0])
    last = [line for line in lines if "evaluate/nats_per_word" in line][-1]
    assert 0 < last["evaluate/nats_per_word"] != last["evaluate/nats_per_word_other_speech"]


def test_interrupted_it_ends_with_the_same_bytes(run, parts, tmp_path):
    shutil.copytree(run, tmp_path / "run")
    place = RunFolder(tmp_path / "run").stage("answers")
    (place.path / "done.json").unlink()
    shutil.rmtree(Checkpoints(place.path / CHECKPOINTS).path(4))
    carry_out(stage_of(parts), context_of(tmp_path / "run", kind=MeasuringContext))
    assert_same(weights(tmp_path / "run"), weights(run))


def test_kept_features_train_alike_and_the_log_says_so(run, parts, tmp_path):
    """The encoder has dropout, which a frozen one does not use; a row without a clip has features of none."""
    said = []
    carry_out(stage_of(parts, cache=True), context_of(tmp_path / "run", said))
    assert_same(weights(tmp_path / "run"), weights(run), 1e-5)
    assert any("features of 13 items are kept (at most 0.00 GB)" in line for line in said)
    tables = list((tmp_path / "run" / "features").glob("*/index.json"))
    assert len(tables) == 2, "of the items that are heard, and of those that are read"
    before = {table: table.stat().st_mtime_ns for table in tables}
    carry_out(stage_of(parts, "again", cache=True, train=ONE), context_of(tmp_path / "run"))
    assert {table: table.stat().st_mtime_ns for table in (tmp_path / "run" / "features").glob("*/index.json")} == before
    losses = [
        [line["loss"] for line in read_metrics(folder / "stages" / "answers") if "loss" in line]
        for folder in (run, tmp_path / "run")
    ]
    np.testing.assert_allclose(*losses, rtol=1e-4)


def test_it_goes_on_from_an_earlier_stage(run, parts, tmp_path):
    shutil.copytree(run, tmp_path / "run")
    stage = stage_of(parts, "more", goes_on="answers", optimizer=STILL, train=ONE)
    assert stage.needs == ("answers",)
    carry_out(stage, context_of(tmp_path / "run"))
    assert_same(weights(tmp_path / "run", "more"), weights(run), 1e-9)


def test_it_goes_on_from_a_stage_of_another_run(run, parts, tmp_path):
    there = run / "stages" / "answers"
    stage = stage_of(parts, "more", goes_on=str(there), optimizer=STILL, train=ONE)
    assert stage.needs == ()
    carry_out(stage, context_of(tmp_path / "run"))
    assert_same(weights(tmp_path / "run", "more"), weights(run), 1e-9)
    with pytest.raises(UserError, match=r"goes_on is .*nowhere': is no folder of a finished stage"):
        stage.replace(goes_on=str(tmp_path / "nowhere")).check_outside(None)


def test_what_an_earlier_stage_was_trained_with_must_be_there(run, parts, tmp_path):
    other = with_part(stage_of(parts, "more", goes_on="answers"), "lm", source=str(parts / "other"))
    with pytest.raises(
        UserError, match=r"part 'frozen/lm': the hash of .* stage 'answers' was trained with the weights"
    ):
        planned(other, context_of(run))
    shutil.rmtree(run / "stages" / "more")
    without = stage_of(parts, "more", goes_on="answers", lora=None)
    with pytest.raises(UserError, match=r"lora is None: stage 'answers' has LoRAConfig"):
        planned(without, context_of(run))
    shutil.rmtree(run / "stages" / "more")


def test_first_the_encoder_then_the_language_model(parts, tmp_path):
    """As Qwen-Audio is trained: what the first stage trained is frozen in the second, the rest goes on."""
    first = with_part(stage_of(parts, "first", lora=None), "encoder", path="params/encoder", frozen=False)
    carry_out(first, context_of(tmp_path / "run"))
    before = weights(tmp_path / "run", "first")
    assert {path.split("/")[1] for path in before} == {"encoder", "adapter"}
    second = with_part(
        stage_of(parts, "second", lora=None, goes_on="first", optimizer=STILL, train=ONE),
        "lm",
        path="params/lm",
        frozen=False,
    )
    with pytest.raises(UserError, match="stage 'first' trained it: source='stage:first', take='encoder'"):
        carry_out(second, context_of(tmp_path / "run"))
    shutil.rmtree(tmp_path / "run" / "stages" / "second")
    second = with_part(second, "encoder", source="stage:first", take="encoder")
    carry_out(second, context_of(tmp_path / "run"))
    after = weights(tmp_path / "run", "second")
    assert {path.split("/")[1] for path in after} == {"lm", "adapter"}
    adapter = {path: leaf for path, leaf in before.items() if "adapter" in path}
    assert_same({path: after[path] for path in adapter}, adapter, 1e-9)
    frozen = flatten_by_path(load_frozen(RunFolder(tmp_path / "run"), "second")["frozen"]["encoder"])
    for path, leaf in frozen.items():
        np.testing.assert_array_equal(leaf, before[f"params/encoder/{path}"])
    missing = with_part(stage_of(parts, "third"), "lm", source="stage:first", take="lm")
    with pytest.raises(UserError, match=r"holds weights of \['adapter', 'encoder'\] only"):
        carry_out(missing, context_of(tmp_path / "run"))


def test_a_part_that_is_trained_begins_with_its_weights(parts, tmp_path):
    stage = stage_of(parts, lora=None, optimizer=STILL, train=ONE)
    stage = with_part(
        with_part(stage, "lm", path="params/lm", frozen=False), "encoder", path="params/encoder", frozen=False
    )
    carry_out(stage, context_of(tmp_path / "run"))
    found = weights(tmp_path / "run")
    for name in ("encoder", "lm"):
        for path, leaf in flatten_by_path(load_model(parts / name)[1]).items():
            np.testing.assert_allclose(found[f"params/{name}/{path}"], leaf, atol=1e-9, err_msg=path)


def first_loss(folder, name="answers"):
    return next(line["loss"] for line in read_metrics(folder / "stages" / name) if "loss" in line)


@pytest.mark.parametrize(("dtype", "near"), [("bfloat16", 0.05), ("int8", 0.1)])
def test_the_base_may_be_in_fewer_bits(run, parts, tmp_path, dtype, near):
    stage = with_part(stage_of(parts, train=ONE), "lm", dtype=dtype)
    carry_out(stage, context_of(tmp_path / "run"))
    assert first_loss(tmp_path / "run") == pytest.approx(first_loss(run), abs=near)
    assert first_loss(tmp_path / "run") != first_loss(run)
    lm = flatten_by_path(load_frozen(RunFolder(tmp_path / "run"), "answers")["frozen"]["lm"])
    kinds = {path.rsplit("/", 1)[-1]: leaf.dtype.name for path, leaf in lm.items()}
    if dtype == "int8":
        assert kinds["q"] == "int8" and kinds["scale"] == "float32" and kinds["embedding"] == "float32"
    else:
        assert set(kinds.values()) == {"bfloat16"}


@pytest.mark.parametrize("targets", ["answers", "all"])
def test_what_is_learnt_is_said_in_the_config(parts, tmp_path, targets):
    plan = planned(stage_of(parts, targets=targets), context_of(tmp_path))
    batch = next(plan.batches)
    plan.batches.close()
    words = batch["mask"] & (batch["speech_at"] < 0)
    learnt = batch["target_weight"] > 0
    assert (learnt == words).all() if targets == "all" else (learnt < words).any() and learnt.any(axis=1).all()


def system_of(folder, stage="answers"):
    place = RunFolder(folder).stage(stage)
    config, _ = trained(place)
    model, layout, variables = config.finished(place)
    return SpeechAwareSystem(model, together(variables, load_frozen(RunFolder(folder), stage)), layout)


def test_the_finished_stage_is_a_system_and_its_loss_is_what_it_says(run, parts):
    system = system_of(run)
    (nats,) = system.log_prob([asked(voice(0.3), "Word?", answer="low")])
    assert len(nats) == 4 and np.isfinite(nats).all()
    batch = system._batch([asked(voice(0.3), "Word?", answer="low")], 0, answered=True)
    objective = Answers(system.model, stage_of(parts).objective)
    term = jax.jit(lambda variables: objective(variables, batch, None).terms["answer"])(system.variables)
    assert float(term.total) == pytest.approx(-nats.sum(), rel=1e-4)


def test_shapes_are_those_of_a_real_batch(parts, tmp_path):
    stage = stage_of(parts)
    context = context_of(tmp_path)
    outline, plan = stage.outline(run_of(stage)), planned(stage, context)
    try:
        real = next(plan.batches)
    finally:
        plan.batches.close()
    told = {name: (shape.shape, shape.dtype) for name, shape in outline.batch.items()}
    assert told == {name: (value.shape, value.dtype) for name, value in real.items()}
    shapes = [jax.eval_shape(each.initialise, jax.random.key(0)) for each in (outline, plan)]
    assert jax.tree.all(jax.tree.map(lambda a, b: a.shape == b.shape, *shapes))
    assert (outline.tokens, outline.speech_s) == (2 * 32, 2 * 0.375)
    wanted = jax.tree.map(lambda leaf: tuple(leaf.shape), plan.parts.frozen)
    assert jax.tree.map(lambda leaf: tuple(leaf.shape), outline.frozen) == wanted
    assert stage.planned_model(run_of(stage)).encoders == (ENCODER,)


MANY = SpecialsConfig(specials=tuple("abcdefghijkl"))
OTHER = MixtureConfig(parts=(TASKS.parts[0].replace(corpus="other"),))
REFUSED = {
    "parts is ['frozen/encoder', 'frozen/llm']: must be lm": lambda stage: with_part(stage, "lm", path="frozen/llm"),
    "join is JoinedConfig": lambda stage: stage.replace(join=JoinedConfig(widths=(16, 16))),
    "length is 41: the language model has 40 positions": lambda stage: stage.replace(length=41),
    "tokens is 268: the table of the language model has 264 rows": lambda stage: stage.replace(tokens=MANY),
    "ids of '<|im_end|>'": lambda stage: stage.replace(template=CHATML),
    "targets is 'none'": lambda stage: stage.replace(targets="none"),
    "matches the whole path of no Linear layer": lambda stage: stage.replace(lora=LoRAConfig(targets="lm/nothing")),
    "corpus of part 'heard' is 'other': the run has a single corpus": lambda stage: stage.replace(tasks=OTHER),
    "no train item can be used for 'heard' ({'the row is longer than 4 entries': 6": lambda s: s.replace(length=4),
}


@pytest.mark.parametrize("told", REFUSED)
def test_what_does_not_fit_is_one_clear_error(parts, tmp_path, told):
    stage = REFUSED[told](stage_of(parts))
    context = context_of(tmp_path)

    def begin():
        jax.eval_shape(planned(stage, context).initialise, jax.random.key(0))

    with pytest.raises(UserError, match=re.escape(told)):
        begin()


def test_tasks_are_tasks(parts):
    with pytest.raises(UserError, match="tasks is 'LinearAdapterConfig': a task"):
        stage_of(parts, tasks=stage_of(parts).adapter)
    with pytest.raises(UserError, match="example of 'a' is 'NoneType': must be a task"):
        stage_of(parts, tasks=MixtureConfig(parts=(PartConfig(name="a", weight=1.0),)))
    assert [part.name for part in stage_of(parts, tasks=TASKS.parts[0].example).mixture.parts] == ["task"]


def test_a_tokenizer_of_a_file_goes_with_the_stage(parts, tmp_path):
    """The file of a stage that is done is not needed any more; one with more sub-words than rows is refused."""
    small, large = (write_subwords(tmp_path / f"{size}.json", size) for size in (262, 290))
    stage = stage_of(parts, tokens=TokenizerFileConfig(path=str(small)), train=ONE)
    carry_out(stage, context_of(tmp_path / "run"))
    small.unlink()
    assert system_of(tmp_path / "run").layout.tokens.special("</s>") == 2
    wrong = stage.replace(name="wrong", tokens=TokenizerFileConfig(path=str(large)))
    with pytest.raises(UserError, match="tokens is 290: the table of the language model has 264 rows"):
        carry_out(wrong, context_of(tmp_path / "run"))


def test_tokens_may_be_those_that_an_earlier_stage_learnt(parts, tmp_path):
    learnt = TextLMConfig(
        name="text",
        model=LM.replace(max_positions=None),
        tokens=LearntTokensConfig(size=264),
        kinds=None,
        row_length=16,
        train=ONE,
        batches=PipelineConfig(batch=2),
        optimizer=STILL,
    )
    context = context_of(tmp_path / "run")
    carry_out(learnt, context)
    stage = stage_of(parts, tokens=StageTokensConfig(stage="text"), train=ONE)
    assert stage.needs[-1] == "text"
    carry_out(stage, context)
    text = "low and hi"
    tokens = system_of(tmp_path / "run").layout.tokens
    assert tokens.encode(text) == learnt.kept_tokens(context.run.stage("text")).make().encode(text)
    carry_out(stage_of(parts, train=ONE), context_of(tmp_path / "other"))
    with pytest.raises(UserError, match=r"tokens\.stage is 'answers': leaves no tokenizer\.json"):
        tokens_of(StageTokensConfig(stage="answers"), context_of(tmp_path / "other"))


def test_it_is_no_stage_for_another_rate(parts):
    stage_of(parts).check_corpus(CORPUS)
    with pytest.raises(UserError, match="rate_hz of the corpus is 24000"):
        stage_of(parts).check_corpus(CORPUS.replace(rate_hz=24_000))
    stage_of(parts).check_outside(None)
    with pytest.raises(UserError, match="there is no such folder"):
        with_part(stage_of(parts), "lm", source="nowhere").check_outside(None)
