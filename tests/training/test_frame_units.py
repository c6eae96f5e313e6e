"""Units by k-means: the sample in host memory, and the units of a corpus that was fitted whole or thinned."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from slm_jax.assemblies.phonetic_tokenizer import MFCCFeaturesConfig, PhoneticTokenizer
from slm_jax.audio.files import write_wav
from slm_jax.checkpoints.model_folder import save_model
from slm_jax.core.errors import UserError
from slm_jax.core.part_source import PartSource
from slm_jax.core.types import Frames
from slm_jax.data.corpus import FolderConfig
from slm_jax.data.passes import float_samples
from slm_jax.data.records import RecordSource
from slm_jax.quantizers.kmeans import KMeansConfig
from slm_jax.quantizers.postprocess import PostprocessConfig, real_frames, treated
from slm_jax.training.feature_passes import row_mesh
from slm_jax.training.pre.frame_sample import FrameSample
from slm_jax.training.pre.frame_units import TOKENIZER, FrameUnitsConfig, LayerOfPartConfig
from slm_jax.training.run_folder import RunFolder
from slm_jax.training.stages import RunConfig, StageContext, require_corpus, run_stages
from tests.contracts.checks import random_params
from tests.shapes import ENCODERS

POST = PostprocessConfig(normalise="standardise", smooth=3)


def drawn(seed, counts=(5, 0, 9), length=12, width=4):
    values = np.random.default_rng(seed).normal(size=(len(counts), length, width)).astype(np.float32)
    return {"name": seed}, Frames(jnp.asarray(values), jnp.arange(length) < jnp.asarray(counts)[:, None])


def test_a_sample_holds_each_real_frame_once_and_treats_it_as_its_batch_would():
    batches = [drawn(0), drawn(1, (12, 1, 3), length=14)]
    sample = FrameSample(40).fill(batches)
    plain = real_frames(frames for _, frames in batches)
    np.testing.assert_array_equal(sample.values, plain)
    before, post = sample.values.__array_interface__["data"], POST.fit(plain)
    sample.treat(post)
    wanted = [treated(post, frames) for _, frames in batches]
    np.testing.assert_array_equal(sample.values, real_frames(wanted))
    assert sample.values.__array_interface__["data"] == before  # in place
    for (rows, found), (given, _), frames in zip(sample.by_row(sample.values), batches, wanted, strict=True):
        assert rows is given
        for row, values, mask in zip(found, np.asarray(frames.values), np.asarray(frames.mask), strict=True):
            np.testing.assert_array_equal(row, values[mask])


def test_a_sample_is_bounded():
    with pytest.raises(UserError, match="frames is 14: a sample of at most 13"):
        FrameSample(13).fill([drawn(0)])
    with pytest.raises(UserError, match="the sample is empty"):
        _ = FrameSample(13).fill([]).values


@pytest.mark.parametrize("fit_frames", [10_000, 60])
def test_units_are_those_of_the_saved_tokenizer_whether_all_was_fitted_or_not(tmp_path, fit_frames):
    rng = np.random.default_rng(0)
    for i in range(6):
        write_wav(tmp_path / "speech" / f"{i}.wav", 0.1 * rng.normal(size=6000 + 320 * i), 16_000)
    corpus = FolderConfig(path=str(tmp_path / "speech"), processes=1)
    kmeans = KMeansConfig(clusters=8, iterations=4, start_rows=40)
    stage = FrameUnitsConfig(
        name="units",
        features=MFCCFeaturesConfig(coefficients=13),
        kmeans=kmeans,
        postprocess=POST,
        fit_frames=fit_frames,
    )
    config, run = RunConfig(name="units", corpus=corpus, stages=(stage,)), RunFolder(tmp_path / "run")
    context = StageContext(run, corpus, tmp_path / "data", progress=False)
    require_corpus(config, context)
    folder = run.stage("units")
    folder.begin(stage, {})
    folder.finish(stage.run(folder, context))
    tokenizer = PhoneticTokenizer.load(folder.path / TOKENIZER, None)
    for split in ("train", "dev", "test"):
        source, table = context.source(split), RecordSource(stage.records(folder, split))
        assert len(table) == len(source) > 0
        alone = tokenizer.encode_all([float_samples(source[i]["samples"]) for i in range(len(source))])
        for i, units in enumerate(alone):
            assert table[i]["id"] == source[i]["id"]
            np.testing.assert_array_equal(table[i]["units"], units)
    assert json.loads((folder.path / "fit.json").read_text())["inertia"] > 0


def test_an_encoder_from_elsewhere_is_read_from_its_folder_and_named_when_it_is_gone(tmp_path):
    encoder = ENCODERS["log_mel"]
    params = random_params(encoder.make(), jax.random.key(0), jnp.zeros((1, 1600)))
    save_model(tmp_path / "encoder", encoder, params)
    for i in range(4):
        write_wav(tmp_path / "speech" / f"{i}.wav", 0.1 * np.random.default_rng(i).normal(size=6000), 16_000)
    corpus = FolderConfig(path=str(tmp_path / "speech"), processes=1)
    part = PartSource(path="frozen/encoder", source=str(tmp_path / "encoder"), expect=encoder)
    stage = FrameUnitsConfig(
        name="units",
        features=LayerOfPartConfig(part=part, layer=1),
        kmeans=KMeansConfig(clusters=5, iterations=3, start_rows=40),
    )
    config, run = RunConfig(name="units", corpus=corpus, stages=(stage,)), RunFolder(tmp_path / "run")
    context = StageContext(run, corpus, tmp_path / "data", progress=False)
    assert [name for name, _ in run_stages(config, context)] == ["units"]
    assert json.loads((run.path / "stages/units/done.json").read_text())["sha256"].keys() >= {"parts.json", "spec.json"}
    tokenizer, source = stage.tokenizer(context), context.source("train")
    assert stage.spec(context) == stage.planned_spec(config) == stage.found_spec(context) == tokenizer.spec
    table = RecordSource(stage.records(run.stage("units"), "train"))
    samples = float_samples(source[0]["samples"])
    frames = encoder.make().apply({"params": params}, jnp.asarray(samples)[None], layer=1).values[0]
    nearest = np.square(np.asarray(frames)[:, None] - np.asarray(tokenizer.centroids)).sum(-1).argmin(1)
    np.testing.assert_array_equal(table[0]["units"], nearest)
    assert len(set(nearest.tolist())) > 1 and stage.clustered(context).name.endswith("layer 1")
    (tmp_path / "encoder").rename(tmp_path / "gone")
    with pytest.raises(UserError, match=r"part 'frozen/encoder' of stage 'units' is missing"):
        stage.tokenizer(context)
    with pytest.raises(UserError, match="there is no such folder"):
        stage.check_outside(None)


def test_a_corpus_of_another_form_is_refused_before_anything_runs(tmp_path):
    corpus = FolderConfig(path=str(tmp_path), processes=1, rate_hz=24_000)
    stage = FrameUnitsConfig(name="units", features=MFCCFeaturesConfig())
    for other, message in (
        (corpus, "stage 'units' works at 16000 Hz"),
        (corpus.replace(rate_hz=16_000, channels=2), ""),
    ):
        config, run = RunConfig(name="units", corpus=other, stages=(stage,)), RunFolder(tmp_path / "run")
        context = StageContext(run, other, tmp_path / "data", progress=False)
        with pytest.raises(UserError, match=message or "stage 'units' reads one channel"):
            list(run_stages(config, context))
        assert not (run.path / "run.json").exists()


def test_rows_of_a_pass_lie_on_the_devices_that_divide_them():
    assert row_mesh().size == np.gcd(16, jax.local_device_count())
