"""The prosody stage on synthetic voices: tables, classes and their inverse, and the same from waveforms alone."""

import numpy as np
import pytest

from slm_jax.assemblies.phonetic_tokenizer import MFCCFeaturesConfig
from slm_jax.assemblies.prosodic_tokenizer import ProsodyConfig
from slm_jax.audio.pitch import PitchConfig
from slm_jax.core.contracts import Tokenizer
from slm_jax.core.errors import UserError
from slm_jax.data.corpus import SPLITS, WorldConfig
from slm_jax.data.pipeline import PipelineConfig
from slm_jax.data.records import RecordSource
from slm_jax.quantizers.kmeans import KMeansConfig
from slm_jax.training.loop import TrainConfig
from slm_jax.training.pre.frame_units import FrameUnitsConfig
from slm_jax.training.pre.prosody import ProsodyStageConfig
from slm_jax.training.pre.unit_lm import UnitLMConfig
from slm_jax.training.run_folder import RunFolder
from slm_jax.training.stages import RunConfig, run_stage
from slm_jax.training.token_stage import planned_spec, token_stage
from tests.shapes import DECODER
from tests.training.small_voices import SPEAKERS, Voices, VoicesContext

PITCH = PitchConfig(hop_s=0.01)
UNITS = FrameUnitsConfig(name="units", features=MFCCFeaturesConfig(), kmeans=KMeansConfig(clusters=12))
PROSODY = ProsodyStageConfig(name="prosody", units="units", prosody=ProsodyConfig(pitch=PITCH, longest=4, bins=4))
RUN = RunConfig(name="run", corpus=WorldConfig(), stages=(UNITS, PROSODY))


@pytest.fixture(scope="module")
def context(tmp_path_factory):
    run = RunFolder(tmp_path_factory.mktemp("prosody"))
    made = VoicesContext(run, RUN.corpus, run.path / "data", progress=False)
    for stage in RUN.stages:
        run_stage(stage, made)
    return made


@pytest.fixture(scope="module")
def tables(context):
    folder = context.finished("prosody")
    return {split: RecordSource(PROSODY.records(folder, split)) for split in SPLITS}


@pytest.fixture(scope="module")
def tokenizer(context):
    return token_stage(context, "prosody").tokenizer(context)


def rows_of(table):
    return [table[i] for i in range(len(table))]


def test_the_spec_names_streams_sizes_and_columns(context, tokenizer):
    spec = token_stage(context, "prosody").spec(context)
    assert isinstance(tokenizer, Tokenizer) and isinstance(tokenizer.units, Tokenizer)
    assert spec == planned_spec(RUN, "prosody") == tokenizer.spec
    assert spec.describe() == "units 12, duration 5, log_f0 5; every 320 samples at 16,000 Hz"
    real = PROSODY.prosody.replace(continuous=("log_f0",)).spec(UNITS.planned_spec(RUN))
    assert real.sizes == (12, 5, 0) and real.runs == ("runs", "run_duration_class", "run_log_f0")


def test_every_stream_by_run_is_the_same_by_frame(context, tables):
    for config in (PROSODY.prosody, PROSODY.prosody.replace(continuous=("duration", "log_f0"))):
        spec = config.spec(UNITS.planned_spec(RUN))
        for row in (row for table in tables.values() for row in rows_of(table)):
            for frames, runs, size in zip(spec.columns, spec.runs, spec.sizes, strict=True):
                np.testing.assert_array_equal(np.repeat(row[runs], row[spec.durations]), row[frames])
                assert size == 0 or (row[runs].min() >= 0 and row[runs].max() < size)


def test_units_are_those_of_the_units_stage_and_durations_are_cut(context, tables):
    units = RecordSource(UNITS.records(context.finished("units"), "train"))
    for row, bare in zip(rows_of(tables["train"]), rows_of(units), strict=True):
        for name in ("id", "units", "runs", "durations"):
            np.testing.assert_array_equal(row[name], bare[name])
        np.testing.assert_array_equal(row["run_duration_class"], np.minimum(row["durations"], 4))
    assert max(row["durations"].max() for row in rows_of(tables["train"])) > 4


def test_pitch_is_the_mean_over_voiced_frames_of_a_run_without_the_speakers_mean(tables, tokenizer):
    """Calculated run by run, from tracks of each utterance alone."""
    tracks = [np.asarray(PITCH.make()(item["samples"][None])[0])[0] for item in Voices("train")]
    for speaker in ("low", "high"):
        own = [np.log(t[t > 0]) for t, name in zip(tracks, SPEAKERS["train"], strict=True) if name == speaker]
        assert tokenizer.voices[speaker].mean == pytest.approx(np.concatenate(own).mean(), abs=1e-4)
        assert tokenizer.voices[speaker].std == pytest.approx(np.concatenate(own).std(), abs=1e-4)
    assert tokenizer.voices["high"].mean - tokenizer.voices["low"].mean > 0.2
    for row, track in zip(rows_of(tables["train"]), tracks, strict=True):
        start = 0
        for log_f0, f0_class, duration in zip(row["run_log_f0"], row["run_f0_class"], row["durations"], strict=True):
            heard = track[2 * start : 2 * (start + duration)]
            start += duration
            assert (f0_class == 0) == (not (heard > 0).any())
            expected = np.log(heard[heard > 0].mean()) - tokenizer.voices[row["speaker"]].mean if f0_class else 0.0
            assert log_f0 == pytest.approx(expected, abs=1e-4)


def test_classes_hold_equally_many_runs_and_give_back_what_lies_in_them(tables, tokenizer):
    f0_class, log_f0 = (
        np.concatenate([row[name] for row in rows_of(tables["train"])]) for name in ("run_f0_class", "run_log_f0")
    )
    counts = np.bincount(f0_class, minlength=5)
    assert counts[0] > 0 and np.ptp(counts[1:]) <= 1
    middles = tokenizer.log_f0_of(np.arange(5))
    assert middles[0] == 0.0 and (np.diff(middles[1:]) > 0).all()
    inner = (f0_class == 2) | (f0_class == 3)
    width = np.diff(tokenizer.edges)[f0_class[inner] - 2]
    assert (np.abs(tokenizer.log_f0_of(f0_class) - log_f0)[inner] <= width / 2 + 1e-6).all()
    hz = tokenizer.f0_hz_of(np.array([0, 1, 4]), tokenizer.voices["low"])
    assert hz[0] == 0 and 60 < hz[1] < np.exp(tokenizer.voices["low"].mean) < hz[2] < 400


@pytest.mark.parametrize("split", SPLITS)
def test_waveforms_alone_give_the_rows_of_the_table(split, tables, tokenizer):
    """The table was made from padded batches; a speaker nobody trained on is like one whose name is not said."""
    for item, row in zip(Voices(split), rows_of(tables[split]), strict=True):
        speaker = None if item["speaker"] == "unheard" else item["speaker"]
        (made,) = tokenizer.encode_all([item["samples"]], speaker)
        for name in ("units", "runs", "durations", "run_duration_class"):
            np.testing.assert_array_equal(made[name], row[name])
        np.testing.assert_allclose(made["run_log_f0"], row["run_log_f0"], atol=1e-4)
        clear = np.abs(row["run_log_f0"][:, None] - tokenizer.edges).min(1) > 1e-4
        np.testing.assert_array_equal(made["run_f0_class"][clear], row["run_f0_class"][clear])


def test_a_voice_not_known_is_normalised_by_itself(tables):
    (row,) = rows_of(tables["dev"])
    voiced = row["run_f0_class"] > 0
    assert abs(np.average(row["run_log_f0"][voiced], weights=row["durations"][voiced])) < 0.1


def test_together_is_as_alone(tokenizer):
    waveforms = [item["samples"] for item in Voices("train")][:2]
    together = tokenizer.encode_all(waveforms, "low")
    for samples, row in zip(waveforms, together, strict=True):
        (alone,) = tokenizer.encode_all([samples], "low")
        for name, values in alone.items():
            np.testing.assert_array_equal(row[name], values)


def test_mistakes_are_named(context, tokenizer):
    with pytest.raises(UserError, match=r"speaker is 'lo'.*did you mean 'low'"):
        tokenizer.encode_all([], "lo")
    with pytest.raises(UserError, match=r"pitch.hop_s is 0.012: a unit's frame lasts 320 samples"):
        ProsodyConfig(pitch=PitchConfig(hop_s=0.012)).tracks_per_frame(UNITS.planned_spec(RUN))
    with pytest.raises(UserError, match=r"continuous is .'units',.: some of duration, log_f0"):
        ProsodyConfig(continuous=("units",))
    lm = UnitLMConfig(
        name="lm",
        units="prosody",
        model=DECODER,
        train=TrainConfig(steps=1),
        batches=PipelineConfig(batch=2),
    )
    with pytest.raises(UserError, match=r"codebooks is .'units', 'duration', 'log_f0'.: one stream of ids"):
        lm.plan(context.run.stage("lm"), context)
