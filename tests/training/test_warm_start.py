"""A unit language model that begins with a text model: what it takes, what it refuses, how it goes on."""

import json
import shutil

import jax
import numpy as np
import pytest

from slm_jax.assemblies.phonetic_tokenizer import MFCCFeaturesConfig
from slm_jax.audio.files import write_wav
from slm_jax.checkpoints.lazy import part_hash
from slm_jax.checkpoints.manager import restore_params
from slm_jax.checkpoints.model_folder import save_model
from slm_jax.core.errors import UserError
from slm_jax.core.trees import flatten_by_path
from slm_jax.data.corpus import FolderConfig
from slm_jax.data.pipeline import PipelineConfig
from slm_jax.interop.model import export
from slm_jax.quantizers.kmeans import KMeansConfig
from slm_jax.sequence_models.decoder_config import DecoderConfig
from slm_jax.sequence_models.presets import llama
from slm_jax.training.loop import TrainConfig
from slm_jax.training.optimizer import OptimizerConfig
from slm_jax.training.pre.frame_units import FrameUnitsConfig
from slm_jax.training.pre.unit_lm import UnitLMConfig
from slm_jax.training.run_folder import RunFolder
from slm_jax.training.stages import RunConfig, StageContext, run_stages
from slm_jax.training.warm_start import RECORD, agreed, load_decoder, recorded, renewed, retabled
from tests.training import small_parts

TEXT = llama("7b", vocabulary=41, layers=2, width=16, heads=2, kv_heads=1, hidden=24, max_positions=64)
OWN = TEXT.replace(vocabulary=16, dropout=0.1, max_positions=None)


def text_params(seed=1, config=TEXT):
    """Random weights of the text model; its table is wider spread than a new one would be."""
    params = small_parts.text_params(seed, config)
    params["tokens"]["embedding"] = 3.0 * params["tokens"]["embedding"]
    return params


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A hub folder."""
    return export(TEXT, text_params(), tmp_path_factory.mktemp("weights") / "text")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    folder = tmp_path_factory.mktemp("speech")
    draws = np.random.default_rng(0)
    for number in range(12):
        steps = np.repeat(draws.uniform(0.02, 0.4, 20), 800)
        write_wav(folder / f"{number}.wav", 0.1 * np.sin(np.cumsum(steps)), 16_000)
    return FolderConfig(path=str(folder), processes=1, dev_share=0.2, test_share=0.1)


def recipe(corpus, **changes):
    """Units of MFCC and a language model on them."""
    lm = UnitLMConfig(
        name="lm",
        units="units",
        model=OWN,
        row_length=32,
        train=TrainConfig(steps=4, log_every=2, checkpoint_every_steps=2),
        batches=PipelineConfig(batch=2),
        optimizer=OptimizerConfig(learning_rate=1e-3),
    )
    kmeans = KMeansConfig(clusters=8, iterations=3, start_rows=200)
    units = FrameUnitsConfig(name="units", features=MFCCFeaturesConfig(), kmeans=kmeans)
    return RunConfig(name="warm", corpus=corpus, stages=(units, lm.replace(**changes)))


def lm_of(folder):
    return folder / "stages" / "lm"


@pytest.fixture(scope="module")
def with_units(corpus, tmp_path_factory):
    """A run folder with its units, beside the prepared corpus; every test goes on from a copy."""
    folder = tmp_path_factory.mktemp("units") / "run"
    context = StageContext(RunFolder(folder), corpus, folder.parent / "data", progress=False)
    list(run_stages(recipe(corpus), context, only=["units"]))
    (folder / "run.json").unlink()
    return folder


@pytest.fixture(scope="module")
def run(with_units):
    """Carries out a recipe in a folder, which gets the units where it is new; returns the parameters by path."""

    def carry_out(config, folder):
        if not folder.exists():
            shutil.copytree(with_units, folder)
        context = StageContext(RunFolder(folder), config.corpus, with_units.parent / "data", progress=False)
        list(run_stages(config, context))
        params = restore_params(lm_of(folder) / "checkpoints").trees["params"]
        return flatten_by_path(jax.tree.map(np.asarray, params))

    return carry_out


@pytest.fixture(scope="module")
def finished(run, weights, corpus, tmp_path_factory):
    """A run that was never disturbed."""
    folder = tmp_path_factory.mktemp("finished") / "run"
    return folder, run(recipe(corpus, start_from=str(weights)), folder)


def test_the_body_is_that_of_the_text_model_and_the_table_is_new(run, weights, corpus, tmp_path):
    still = {"train": TrainConfig(steps=1), "optimizer": OptimizerConfig(learning_rate=1e-12)}
    made = run(recipe(corpus, start_from=str(weights), **still), tmp_path / "run")
    given = flatten_by_path(text_params())
    assert made.keys() == given.keys()
    for path, value in given.items():
        if path in ("tokens/embedding", "head_kernel"):
            assert made[path].shape == tuple(16 if size == 41 else size for size in value.shape)
            assert made[path].std() == pytest.approx(value.std(), rel=0.2)
        else:
            np.testing.assert_allclose(made[path], value, atol=1e-9)


def test_it_goes_on_to_the_same_bytes_when_the_folder_is_gone(run, finished, weights, corpus, tmp_path):
    folder, whole = finished
    copy, moved = tmp_path / "run", tmp_path / "gone"
    shutil.copytree(folder, copy)
    (lm_of(copy) / "done.json").unlink()
    shutil.rmtree(lm_of(copy) / "checkpoints" / "00000004")
    weights.rename(moved)
    try:
        again = run(recipe(corpus, start_from=str(weights)), copy)
    finally:
        moved.rename(weights)
    assert all(np.array_equal(again[path], value) for path, value in whole.items())


def test_what_it_began_with_is_written_down(finished, weights):
    folder, _ = finished
    record = recorded(RunFolder(folder).stage("lm"))
    assert record["weights"] == part_hash(text_params())
    assert record["source"] == str(weights)
    assert RECORD in json.loads((lm_of(folder) / "done.json").read_text())["sha256"]


def test_other_weights_before_the_first_checkpoint_are_refused(run, finished, weights, corpus, tmp_path):
    copy, moved = tmp_path / "run", tmp_path / "kept"
    shutil.copytree(finished[0], copy)
    (lm_of(copy) / "done.json").unlink()
    shutil.rmtree(lm_of(copy) / "checkpoints")
    weights.rename(moved)
    try:
        export(TEXT, text_params(seed=2), weights)
        with pytest.raises(UserError, match=rf"weights .* is '{part_hash(text_params(seed=2))}'.*began with"):
            run(recipe(corpus, start_from=str(weights)), copy)
    finally:
        shutil.rmtree(weights)
        moved.rename(weights)


@pytest.mark.parametrize("model", [OWN, None])
def test_without_its_folder_nothing_is_begun(model, corpus, tmp_path):
    context = StageContext(RunFolder(tmp_path / "run"), corpus, tmp_path / "data", progress=False)
    with pytest.raises(UserError, match=r"start_from is 'nowhere': there is no such folder"):
        list(run_stages(recipe(corpus, model=model, start_from="nowhere"), context))
    assert not (tmp_path / "run" / "stages").exists()
    assert not (tmp_path / "data").exists()


def test_a_folder_of_another_kind_or_shape_is_refused_before_anything_is_begun(run, weights, corpus, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"neither config.json .* nor model.json"):
        run(recipe(corpus, start_from=str(tmp_path / "empty")), tmp_path / "run")
    other = recipe(corpus, start_from=str(weights), model=OWN.replace(layers=3, gated=False, kv_heads=2))
    with pytest.raises(UserError, match=r"layers 3 -> 2; kv_heads 2 -> 1; gated False -> True"):
        run(other, tmp_path / "run")
    assert not lm_of(tmp_path / "run").exists()


def test_our_own_folder_gives_the_same_start_as_the_hub_form(weights, tmp_path):
    save_model(tmp_path / "ours", TEXT, text_params())
    ours, theirs = load_decoder(str(tmp_path / "ours")), load_decoder(str(weights))
    assert ours[0] == theirs[0]
    assert part_hash(ours[1]) == part_hash(theirs[1]) == part_hash(text_params())


def test_one_changed_weight_changes_the_hash():
    params = text_params()
    before = part_hash(params)
    params["blocks"]["layers"]["mlp"]["up"]["kernel"] = params["blocks"]["layers"]["mlp"]["up"]["kernel"].copy()
    params["blocks"]["layers"]["mlp"]["up"]["kernel"][0, 0, 0] += 1e-6
    assert part_hash(params) != before


def test_the_shape_comes_from_the_folder_and_the_dropout_from_the_config():
    assert agreed(TEXT, OWN, 16, "x") == TEXT.replace(vocabulary=16, dropout=0.1, max_positions=None)
    assert agreed(TEXT, None, 16, "x") == TEXT.replace(vocabulary=16, max_positions=None)
    spelled_out = OWN.replace(head_width=8, embed_width=16)
    assert agreed(TEXT, spelled_out, 16, "x").dropout == 0.1
    learned = {"vocabulary": 9, "layers": 1, "width": 8, "heads": 1, "hidden": 8, "positions": "learned"}
    assert agreed(DecoderConfig(max_positions=32, **learned), None, 9, "x").max_positions == 32
    with pytest.raises(UserError, match="max_positions 64 -> 32"):
        agreed(DecoderConfig(max_positions=32, **learned), DecoderConfig(max_positions=64, **learned), 9, "x")


def test_a_model_may_be_left_to_the_folder_only():
    with pytest.raises(UserError, match="model is None"):
        UnitLMConfig(name="lm", units="units", model=None, train=TrainConfig(steps=1), batches=PipelineConfig(batch=1))


def test_without_a_model_the_shape_is_the_folders(run, weights, corpus, tmp_path):
    config = recipe(corpus, start_from=str(weights), model=None, train=TrainConfig(steps=1))
    run(config, tmp_path / "run")
    stage = RunFolder(tmp_path / "run").stage("lm")
    # 3 + 8 ids, filled up to a multiple of 8; rotary positions have no end
    assert UnitLMConfig.of(stage).decoder(stage) == TEXT.replace(vocabulary=16, max_positions=None)


@pytest.mark.parametrize("rows", [1, 16, 41, 60])
def test_a_fresh_table_is_spread_like_the_old_and_first_rows_are_kept(rows):
    old = text_params()["tokens"]["embedding"]
    fresh = renewed(old, rows, "fresh", jax.random.key(0))
    kept = renewed(old, rows, "first_rows", jax.random.key(0))
    assert fresh.shape == kept.shape == (rows, 16)
    assert fresh.dtype == kept.dtype == np.float32
    np.testing.assert_array_equal(kept[:41], old[:rows])
    np.testing.assert_array_equal(kept[41:], fresh[41:])
    assert not np.isclose(fresh[: len(old)], old[:rows]).all(axis=1).any()
    if rows > 10:
        assert fresh.std() == pytest.approx(old.std(), rel=0.2)


def test_a_head_of_its_own_is_treated_like_the_table():
    params = text_params()
    made = retabled(params, 16, "first_rows", jax.random.key(0))
    np.testing.assert_array_equal(made["head_kernel"], params["head_kernel"][:, :16])
    np.testing.assert_array_equal(made["tokens"]["embedding"], params["tokens"]["embedding"][:16])
    tied = text_params(config=TEXT.replace(tied_head=True))
    assert "head_kernel" not in retabled(tied, 16, "fresh", jax.random.key(0))
    drawn = retabled(params, 16, "fresh", jax.random.key(0))
    assert not np.allclose(drawn["head_kernel"].T, drawn["tokens"]["embedding"])
    assert made["blocks"] is params["blocks"]
