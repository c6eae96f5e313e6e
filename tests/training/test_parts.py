"""Parts that something else trained: frozen or the start of training, from each kind of source."""

import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from slm_jax.checkpoints.lazy import part_hash
from slm_jax.checkpoints.manager import Checkpoints, restore_params
from slm_jax.checkpoints.model_folder import save_model
from slm_jax.core.config import from_json
from slm_jax.core.errors import UserError
from slm_jax.core.trees import count_bytes, flatten_by_path
from slm_jax.data.corpus import WorldConfig
from slm_jax.data.pipeline import PipelineConfig
from slm_jax.interop.model import export
from slm_jax.parallel.sharding import unbox
from slm_jax.training.gradient_stage import CHECKPOINTS
from slm_jax.training.loop import TrainConfig
from slm_jax.training.part_record import RECORD, recorded
from slm_jax.training.parts import check_parts, load_frozen, open_part, open_parts
from slm_jax.training.pre.unit_lm import UnitLMConfig
from slm_jax.training.run_folder import RunFolder
from slm_jax.training.stages import RunConfig
from slm_jax.workbench.plan_memory import held_bytes
from slm_jax.workbench.plan_program import make_program
from tests.training.small_parts import FROZEN, TEXT, carry_out, delta, text_params


@pytest.fixture(scope="module")
def hub(tmp_path_factory):
    return export(TEXT, text_params(), tmp_path_factory.mktemp("weights") / "text")


def unfinished(folder, left=0):
    """A copy of a finished stage that has `left` of its checkpoints."""
    (folder.path / "done.json").unlink()
    checkpoints = Checkpoints(folder.path / CHECKPOINTS)
    for step in checkpoints.steps()[left:]:
        shutil.rmtree(checkpoints.path(step))
    return folder


@pytest.fixture(scope="module")
def finished(hub, tmp_path_factory):
    return carry_out(delta(hub), tmp_path_factory.mktemp("finished") / "run")


def test_a_frozen_part_is_read_but_neither_saved_nor_averaged(finished, hub):
    checkpoints = Checkpoints(finished.path / CHECKPOINTS)
    stored = checkpoints.read_json(2, "arrays")
    assert "blocks/layers/mlp/up/kernel" in stored["params"]
    assert not any(
        "frozen" in path or dtype == "bfloat16" for item in stored.values() for path, (_, dtype) in item.items()
    )
    moved = restore_params(finished.path / CHECKPOINTS, item="params").trees["params"]
    assert max(float(np.abs(leaf).max()) for leaf in jax.tree.leaves(moved)) > 1e-4, "the deltas should have moved"
    record = recorded(finished)["frozen/lm"]
    assert record["hash"] == part_hash(text_params())
    assert from_json(record["part"]) == FROZEN.replace(source=str(hub))
    assert from_json(record["config"]).layers == 2
    assert RECORD in json.loads((finished.path / "done.json").read_text())["sha256"]


def test_a_part_by_its_name_on_the_hub_is_found_in_the_cache(hub, tmp_path, monkeypatch):
    cached, commit = tmp_path / "models--somebody--text", "0123456789abcdef0123456789abcdef01234567"
    (cached / "refs").mkdir(parents=True)
    (cached / "refs" / "main").write_text(commit)
    shutil.copytree(hub, cached / "snapshots" / commit)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    part = open_part(FROZEN.replace(source="hub:somebody/text"), RunFolder(tmp_path / "run"))
    assert part_hash(unbox(part.params)) == part_hash(text_params())
    with pytest.raises(UserError, match="hub:somebody/else can't be had"):
        open_part(FROZEN.replace(source="hub:somebody/else"), RunFolder(tmp_path / "run"))


def test_going_on_with_other_weights_is_refused_with_both_hashes(finished, hub, tmp_path):
    shutil.copytree(finished.path.parents[1], tmp_path / "run")
    copy, kept = unfinished(RunFolder(tmp_path / "run").stage("delta"), left=1), tmp_path / "kept"
    hub.rename(kept)
    try:
        export(TEXT, text_params(seed=2), hub)
        before, now = part_hash(text_params()), part_hash(text_params(seed=2))
        with pytest.raises(UserError, match=rf"'frozen/lm'.* is '{now}'.*began with the weights {before}"):
            carry_out(delta(hub), tmp_path / "run")
    finally:
        shutil.rmtree(hub)
        kept.rename(hub)
    assert carry_out(delta(hub), tmp_path / "run").is_done()
    assert copy.is_done()


def test_a_moved_run_says_what_it_misses_and_takes_it_from_its_own_folder(finished, hub, tmp_path):
    shutil.copytree(finished.path.parents[1], tmp_path / "run")
    run, away = RunFolder(tmp_path / "run"), tmp_path / "away"
    hub.rename(away)
    try:
        with pytest.raises(UserError) as found:
            load_frozen(run, "delta")
        (line,) = str(found.value).splitlines()
        own = run.path / "parts" / "frozen.lm"
        for told in (
            "'frozen/lm' of stage 'delta'",
            part_hash(text_params()),
            repr(str(hub)),
            "put them there",
            str(own),
        ):
            assert told in line
        shutil.copytree(away, own)
        lm = load_frozen(run, "delta")["frozen"]["lm"]
        export(TEXT, text_params(seed=2), tmp_path / "other")
        shutil.rmtree(own)
        shutil.copytree(tmp_path / "other", own)
        with pytest.raises(UserError, match=r"began with the weights"):
            load_frozen(run, "delta")
    finally:
        away.rename(hub)
    for path, leaf in flatten_by_path(text_params()).items():
        np.testing.assert_array_equal(flatten_by_path(lm)[path], leaf.astype(jnp.bfloat16), err_msg=path)


def test_a_part_that_is_trained_on_is_the_start_and_not_needed_after_the_first_checkpoint(hub, tmp_path):
    source = tmp_path / "text"
    shutil.copytree(hub, source)
    stage = delta(source, path="params", frozen=False, dtype=None, rate=1e-12)
    place = carry_out(stage, tmp_path / "run")
    made = flatten_by_path(restore_params(place.path / CHECKPOINTS).trees["params"])
    slow = flatten_by_path(restore_params(place.path / CHECKPOINTS, item="ema").trees["ema"])
    for path, leaf in flatten_by_path(text_params()).items():
        np.testing.assert_allclose(made[path], leaf, atol=1e-9, err_msg=path)
        np.testing.assert_allclose(slow[path], leaf, atol=1e-9, err_msg=path)
    source.rename(tmp_path / "gone")
    unfinished(place, left=1)
    stage.check_outside(place)
    assert carry_out(stage, tmp_path / "run").is_done()
    unfinished(place, left=0)
    with pytest.raises(UserError, match="there is no such folder"):
        stage.check_outside(place)
    with pytest.raises(UserError, match="there is no such folder"):
        carry_out(stage, tmp_path / "run")


def test_every_kind_of_source_gives_the_same_weights(hub, tmp_path):
    save_model(tmp_path / "ours", TEXT, text_params())
    run = RunFolder(tmp_path / "run")
    stage = UnitLMConfig(
        name="lm", units="units", model=TEXT, train=TrainConfig(steps=1), batches=PipelineConfig(batch=1)
    )
    place = run.stage("lm")
    place.begin(stage, {})
    checkpoints = Checkpoints(place.path / CHECKPOINTS)
    checkpoints.save(1, {"params": jax.tree.map(jnp.asarray, text_params())}, {}, {})
    checkpoints.close()
    place.finish([CHECKPOINTS])
    for source in (str(hub), str(tmp_path / "ours"), "stage:lm"):
        part = open_part(FROZEN.replace(source=source), run)
        assert (part.config.layers, part.config.vocabulary) == (2, 24)
        assert part_hash(unbox(part.params)) == part_hash(text_params())
        up = unbox(part.params)["blocks"]["layers"]["mlp"]["up"]["kernel"]
        assert up.dtype == jnp.bfloat16
        wanted = text_params()["blocks"]["layers"]["mlp"]["up"]["kernel"].astype(jnp.bfloat16)
        np.testing.assert_array_equal(up[slice(1, 2), slice(3, 9), slice(None)], wanted[1:2, 3:9])


def test_what_does_not_fit_is_named_before_anything_is_read(hub, tmp_path):
    run = RunFolder(tmp_path)
    part = FROZEN.replace(source=str(hub))
    check_parts([part.replace(expect=TEXT.replace(dropout=0.3, dtype="bfloat16"))], None)
    with pytest.raises(UserError, match=r"part 'frozen/lm'.*layers 3 -> 2; .*vocabulary 25 -> 24"):
        check_parts([part.replace(expect=TEXT.replace(layers=3, vocabulary=25))], None)
    with pytest.raises(UserError, match=r"source of part 'frozen/lm' is 'nowhere': there is no such folder"):
        check_parts([FROZEN.replace(source="nowhere")], run.stage("delta"))
    check_parts([FROZEN.replace(source="stage:lm")], None)
    with pytest.raises(UserError, match=r"is not done yet"):
        open_part(FROZEN.replace(source="stage:lm"), run)
    kept = open_part(part.replace(expect=TEXT.replace(dropout=0.3)), run)
    assert kept.config.dropout == 0.3


def test_two_parts_in_one_place_are_refused(hub, tmp_path):
    twice = (FROZEN.replace(source=str(hub)),) * 2
    with pytest.raises(UserError, match="a path of its own"):
        open_parts(twice, RunFolder(tmp_path).stage("delta"))


def test_a_plan_counts_a_part_that_is_not_there():
    stage = delta("nowhere", expect=TEXT)
    run = RunConfig(name="run", corpus=WorldConfig(hours=0.01), stages=(stage,))
    program = make_program(stage, run, jax.devices()[:1])
    assert held_bytes(program.frozen) == count_bytes(text_params()) // 2
    assert program.trace().jaxpr is not None
