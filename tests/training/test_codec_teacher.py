"""A teacher for a codec's first book: it is followed, it is not part of the codec, and frames of both must fit."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from slm_jax.checkpoints.model_folder import save_model
from slm_jax.core.errors import UserError
from slm_jax.core.part_source import PartSource
from slm_jax.core.trees import flatten_by_path
from slm_jax.core.types import Frames
from slm_jax.data.examples.waveform_segments import WaveformSegmentConfig
from slm_jax.data.pipeline import PipelineConfig
from slm_jax.objectives.taught import cosine, spanned
from slm_jax.training.gradient_stage import trained
from slm_jax.training.loop import TrainConfig
from slm_jax.training.metrics import read_metrics
from slm_jax.training.pre.codec_teacher import CodecTeacherConfig
from slm_jax.training.pre.frame_units import LayerOfPartConfig
from slm_jax.training.stages import RunConfig
from tests.contracts.checks import random_params
from tests.shapes import ENCODERS
from tests.training.small_answers import CORPUS, MeasuringContext, carry_out, context_of
from tests.training.small_codec import JUDGES, MODEL, STAGE

HEARS = ENCODERS["log_mel"].replace(layers=1)
SLOW = MODEL.replace(
    encoder=MODEL.encoder.replace(n_fft=640, hop=320), decoder=MODEL.decoder.replace(n_fft=640, hop=320)
)
"""Fifty latents a second, as many as the teacher has frames."""


def taught_by(folder, model=SLOW, **changes):
    """The small stage without judges and with a drawn encoder as its teacher."""
    samples = jnp.zeros((1, 4_000))
    save_model(folder / "teacher", HEARS, random_params(HEARS.make(), jax.random.key(2), samples))
    part = PartSource(path="frozen/teacher", source=str(folder / "teacher"))
    teacher = CodecTeacherConfig(features=LayerOfPartConfig(part=part, layer=1), weight=5.0)
    losses = STAGE.losses.replace(balance=None, resolutions=((64, 16, 8),))
    stage = STAGE.replace(model=model, judges=None, losses=losses, segment_s=0.2, teacher=teacher)
    return stage.replace(**changes)


def measuring(folder):
    plain = context_of(folder, kind=MeasuringContext)
    return MeasuringContext(plain.run, plain.corpus, plain.data_dir, progress=False)


def test_the_first_book_follows_and_the_codec_goes_without(tmp_path):
    stage = taught_by(tmp_path, train=TrainConfig(steps=30, log_every=1, evaluate_every=30))
    context = measuring(tmp_path / "run")
    folder = carry_out(stage, context)
    lines = read_metrics(folder.path)
    taught = [line["taught"] for line in lines if "taught" in line]
    (held_out,) = [line["evaluate/taught"] for line in lines if "evaluate/taught" in line]
    assert np.mean(taught[-5:]) < 0.6 * taught[0] and held_out < 0.6 * taught[0]
    config, part = stage.model_of(folder)
    variables = trained(folder)[1]
    assert "lesson" in variables["params"] and not any(
        "lesson" in path for path in flatten_by_path(variables["params"][part])
    )


@pytest.mark.slow(seconds=60)
def test_judges_go_on_without_the_teacher(tmp_path):
    stage = taught_by(tmp_path, train=TrainConfig(steps=1))
    context = measuring(tmp_path / "run")
    carry_out(stage, context)
    judged = STAGE.replace(
        name="judged", model=SLOW, judges=JUDGES, losses=stage.losses, segment_s=0.2, start_from=stage.name
    )
    after = trained(carry_out(judged.replace(train=TrainConfig(steps=1)), context))[1]
    assert set(after["params"]) == {"generator", "discriminator"}


def test_plans_know_the_teacher(tmp_path):
    stage = taught_by(tmp_path)
    outline = stage.outline(RunConfig(name="run", corpus=CORPUS, stages=(stage,)))
    assert set(outline.frozen["frozen"]) == {"teacher"} and "heard" not in outline.batch
    assert stage.needs == () and stage.replace(start_from="before").needs == ("before",)


def test_frames_of_codec_and_teacher_must_fit(tmp_path):
    with pytest.raises(UserError, match=r"latents per second is 1000.* the teacher's 50 a second"):
        carry_out(taught_by(tmp_path, MODEL), measuring(tmp_path / "run"))
    elsewhere = LayerOfPartConfig(part=PartSource(path="frozen/other", source="x"), layer=1)
    with pytest.raises(UserError, match="frozen/teacher"):
        CodecTeacherConfig(features=elsewhere)
    missing = taught_by(tmp_path / "other").replace(batches=PipelineConfig(batch=2))
    (tmp_path / "other" / "teacher").rename(tmp_path / "gone")
    with pytest.raises(UserError, match="teacher"):
        missing.check_outside(None)


@pytest.mark.parametrize(("ratio", "span"), [(1, 1), (2, 1), (2, 2), (4, 2), (1, 3)])
def test_means_are_those_of_a_loop(ratio, span):
    rng = np.random.default_rng(0)
    values, lengths = rng.standard_normal((3, 9, 4)).astype(np.float32), (9, 4, 0)
    mask = np.arange(9) < np.array(lengths)[:, None]
    found = spanned(Frames(jnp.asarray(values), jnp.asarray(mask)), 5, ratio, span)
    for row, length in enumerate(lengths):
        for place in range(5):
            own = values[row, place * ratio : min(length, (place + span) * ratio)]
            assert bool(found.mask[row, place]) == (len(own) > 0)
            if len(own):
                np.testing.assert_allclose(found.values[row, place], own.mean(0), atol=1e-6)


def test_the_cosine_is_torchs():
    torch = pytest.importorskip("torch")
    one, other = np.random.default_rng(1).standard_normal((2, 2, 3, 8)).astype(np.float32)
    wanted = torch.nn.functional.cosine_similarity(torch.tensor(one), torch.tensor(other), -1)
    np.testing.assert_allclose(cosine(jnp.asarray(one), jnp.asarray(other)), wanted, atol=1e-6)


def test_a_teacher_at_another_rate_hears_the_same():
    tone = np.sin(2 * np.pi * 440 * np.arange(30_000) / 24_000)
    row = WaveformSegmentConfig(samples=24_000, rate_hz=24_000, heard_hz=16_000).make()(
        {"samples": (8000 * tone).astype(np.int16)}, np.random.default_rng(0)
    )
    assert row["heard"].shape == row["heard_mask"].shape == (16_000,) and row["heard_mask"].all()
    peaks = [np.abs(np.fft.rfft(row[name])).argmax() for name in ("samples", "heard")]  # one hertz per bin
    assert peaks == [440, 440]
    short = WaveformSegmentConfig(samples=24_000, rate_hz=24_000, heard_hz=16_000).make()(
        {"samples": tone[:12_000].astype(np.float32)}, np.random.default_rng(0)
    )
    assert short["heard_mask"].sum() == 8_000 and not short["heard"][8_000:].any()
