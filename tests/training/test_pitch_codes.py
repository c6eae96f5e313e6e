"""Codes of pitch on synthetic voices: the codec learns, and what it writes are tokens."""

import numpy as np
import pytest

from slm_jax.assemblies.pitch_codec import PitchCodecConfig
from slm_jax.audio.pitch import PitchConfig
from slm_jax.checkpoints.manager import META, Checkpoints
from slm_jax.core.contracts import Tokenizer
from slm_jax.core.errors import UserError
from slm_jax.data.corpus import SPLITS, WorldConfig
from slm_jax.data.pipeline import PipelineConfig
from slm_jax.data.records import RecordSource
from slm_jax.decoders.track import TrackDecoderConfig
from slm_jax.encoders.track import TrackEncoderConfig
from slm_jax.evaluation.pitch_codes import pitch_kept
from slm_jax.quantizers.codebooks import COLLECTION, CodebookConfig
from slm_jax.quantizers.residual import ResidualVQConfig
from slm_jax.training.gradient_stage import CHECKPOINTS, trained
from slm_jax.training.loop import TrainConfig
from slm_jax.training.metrics import read_metrics
from slm_jax.training.optimizer import OptimizerConfig
from slm_jax.training.pre.pitch import PitchStageConfig
from slm_jax.training.pre.pitch_codec import PitchCodecStageConfig
from slm_jax.training.pre.pitch_codes import PitchCodesConfig
from slm_jax.training.pre.unit_lm import UnitLMConfig
from slm_jax.training.run_folder import RunFolder
from slm_jax.training.stages import RunConfig, run_stage
from slm_jax.training.token_stage import TOKENS, planned_spec, token_stage
from tests.shapes import DECODER
from tests.training.small_voices import Voices, VoicesContext

pytestmark = pytest.mark.slow(seconds=20)
SIDE = {"width": 12, "hidden": 16, "strides": (4, 2), "depth": 2}
CODEC = PitchCodecConfig(
    encoder=TrackEncoderConfig(**SIDE),
    decoder=TrackDecoderConfig(**SIDE),
    quantizer=ResidualVQConfig(width=12, books=1, codebook=CodebookConfig(size=8, width=12, decay=0.9)),
)
PITCH = PitchStageConfig(name="pitch", pitch=PitchConfig(hop_s=0.01))
STAGE = PitchCodecStageConfig(
    name="codec",
    pitch="pitch",
    model=CODEC,
    segment_s=0.64,
    train=TrainConfig(steps=200, log_every=20),
    batches=PipelineConfig(batch=4),
    optimizer=OptimizerConfig(learning_rate=1e-2, warmup_steps=0),
)
CODES = PitchCodesConfig(name="codes", codec="codec")
RUN = RunConfig(name="run", corpus=WorldConfig(), stages=(PITCH, STAGE, CODES))


@pytest.fixture(scope="module")
def context(tmp_path_factory):
    run = RunFolder(tmp_path_factory.mktemp("pitch_codes"))
    made = VoicesContext(run, RUN.corpus, run.path / "data", progress=False)
    for stage in RUN.stages:
        run_stage(stage, made)
    return made


def waveform(split: str, index: int) -> np.ndarray:
    return Voices(split)[index]["samples"]


def test_it_learns_f0_voicing_and_its_codes(context):
    logged = {}
    for line in read_metrics(context.finished("codec").path):
        for name, value in line.items():
            logged.setdefault(name, []).append(value)
    for name in ("f0", "voicing"):
        assert logged[name][-1] < 0.6 * logged[name][0], name
    assert 0 <= logged["evaluate/voicing_error"][-1] <= 1 and 1 <= logged["evaluate/perplexity"][-1] <= 8
    books = trained(context.finished("codec"))[1][COLLECTION]["quantizer"]["codebooks"]
    assert float(np.asarray(books["usage"]).sum()) > 0 and np.isfinite(np.asarray(books["entries"])).all()


def test_the_spec_is_known_before_and_after(context):
    spec = token_stage(context, "codes").spec(context)
    assert spec == planned_spec(RUN, "codes") == CODES.found_spec(context)
    assert spec.describe() == "pitch 8; every 1280 samples at 16,000 Hz"
    assert (spec.columns, spec.runs, spec.durations) == (("pitch",), ("runs",), "durations")


def test_tables_hold_what_the_tokenizer_makes_of_the_sound(context):
    tokenizer = CODES.tokenizer(context)
    assert isinstance(tokenizer, Tokenizer)
    seen = set()
    for split in SPLITS:
        table = RecordSource(CODES.records(context.finished("codes"), split))
        assert len(table) == len(Voices(split))
        for i in range(len(table)):
            row, samples = table[i], waveform(split, i)
            assert len(row["pitch"]) == tokenizer.frame_count(len(samples)) > 0
            np.testing.assert_array_equal(np.repeat(row["runs"], row["durations"]), row["pitch"])
            assert (row["runs"][1:] != row["runs"][:-1]).all()
            np.testing.assert_array_equal(tokenizer.encode_all([samples])[0], row["pitch"])
            seen |= set(row["pitch"].tolist())
    assert len(seen) > 2


def test_codes_say_f0_around_the_mean_of_a_voice(context):
    tokenizer, mean = CODES.tokenizer(context), CODEC.features.mean
    real = [tokenizer.f0_hz(waveform("train", i)) for i in range(5)]
    ids = tokenizer.encode_tracks(real)
    made = [tokenizer.decode(row, mean(track)) for row, track in zip(ids, real, strict=True)]
    assert [len(track) for track in made] == [len(row) * CODEC.hop for row in ids]
    kept, flat = (pitch_kept(tracks, real) for tracks in (made, [track.clip(0, 1) * 150 for track in made]))
    assert kept.correlation > 0.8 and kept.voicing_error < 0.25 and kept.cents < 0.7 * flat.cents
    higher = tokenizer.decode(ids[0], mean(real[0]) + float(np.log(2)))
    np.testing.assert_allclose(higher, 2 * made[0], rtol=1e-5)


def test_codes_do_not_depend_on_the_company_nor_on_the_voice(context):
    tokenizer = CODES.tokenizer(context)
    tracks = [tokenizer.f0_hz(waveform("train", i)) for i in range(3)]
    together = tokenizer.encode_tracks(tracks)
    for track, ids in zip(tracks, together, strict=True):
        np.testing.assert_array_equal(tokenizer.encode_tracks([track])[0], ids)
        np.testing.assert_array_equal(tokenizer.encode_tracks([track * 1.5])[0], ids)


def test_what_is_too_short_or_no_code_is_refused(context):
    tokenizer = CODES.tokenizer(context)
    with pytest.raises(UserError, match="values of F0 is 7: a code stands for 8"):
        tokenizer.encode_tracks([np.zeros(7, np.float32)])
    with pytest.raises(UserError, match=r"codes is \[8\]"):
        tokenizer.decode(np.asarray([1, 8]), 5.0)
    short, place = STAGE.replace(name="short", start_segments=1, segment_s=0.08), context.run.stage("short")
    place.begin(short, {"pitch": "none"})
    with pytest.raises(UserError, match="start_segments is 1: 8 codes must begin there"):
        short.run(place, context)


def test_the_outline_has_the_shapes_of_a_batch(context):
    outline, plan = STAGE.outline(RUN), STAGE.plan(context.finished("codec"), context)
    batch = next(plan.batches)
    plan.batches.close()
    assert {name: (x.shape, x.dtype) for name, x in batch.items()} == {
        name: (x.shape, x.dtype) for name, x in outline.batch.items()
    }
    assert outline.tokens == 4 * 8 and outline.speech_s == pytest.approx(4 * 0.64)


def test_a_language_model_reads_codes_of_pitch_as_it_reads_any_units(context):
    lm = UnitLMConfig(
        name="lm",
        units="codes",
        model=DECODER,
        row_length=32,
        train=TrainConfig(steps=1, log_every=1),
        batches=PipelineConfig(batch=4),
        optimizer=OptimizerConfig(warmup_steps=0),
    )
    run_stage(lm, context)
    saved = Checkpoints(context.finished("lm").path / CHECKPOINTS)
    read = saved.read_json(saved.newest_sound(), META)["fixed"]["meta"][TOKENS]
    assert read == token_stage(context, "codes").spec(context).to_json()
    assert np.isfinite(read_metrics(context.finished("lm").path)[0]["loss"])
