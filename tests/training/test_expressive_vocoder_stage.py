"""A vocoder that reads tokens of pitch beside units: its tables, what it is told of them, and what it says."""

import numpy as np
import pytest

from slm_jax.assemblies.phonetic_tokenizer import MFCCFeaturesConfig
from slm_jax.assemblies.pitch_codec import PitchCodecConfig
from slm_jax.audio.pitch import PitchConfig
from slm_jax.core.errors import UserError
from slm_jax.data.corpus import WorldConfig
from slm_jax.data.pipeline import PipelineConfig
from slm_jax.data.records import RecordSource
from slm_jax.decoders.hifigan import HiFiGANConfig
from slm_jax.decoders.track import TrackDecoderConfig
from slm_jax.decoders.unit_vocoder import UnitVocoderConfig
from slm_jax.encoders.track import TrackEncoderConfig
from slm_jax.objectives.vocoder import VocoderLossConfig
from slm_jax.quantizers.codebooks import CodebookConfig
from slm_jax.quantizers.kmeans import KMeansConfig
from slm_jax.quantizers.residual import ResidualVQConfig
from slm_jax.serving.unit_voice import UnitVoice
from slm_jax.training.gradient_stage import trained
from slm_jax.training.loop import TrainConfig
from slm_jax.training.pre.frame_units import FrameUnitsConfig
from slm_jax.training.pre.pitch import PitchStageConfig
from slm_jax.training.pre.pitch_codec import PitchCodecStageConfig
from slm_jax.training.pre.pitch_codes import PitchCodesConfig
from slm_jax.training.pre.unit_vocoder import UnitVocoderStageConfig
from slm_jax.training.run_folder import RunFolder
from slm_jax.training.stages import RunConfig, run_stage
from tests.training.small_voices import VoicesContext

pytestmark = pytest.mark.slow(seconds=25)
SIDE = {"width": 6, "hidden": 4, "strides": (4,), "depth": 1}
BOOK = ResidualVQConfig(width=6, books=1, codebook=CodebookConfig(size=5, width=6))
CODEC = PitchCodecConfig(encoder=TrackEncoderConfig(**SIDE), decoder=TrackDecoderConfig(**SIDE), quantizer=BOOK)
ONE = {"train": TrainConfig(steps=1), "batches": PipelineConfig(batch=2)}
HIFIGAN = HiFiGANConfig(
    upsample=(20, 16), upsample_kernels=(20, 16), channels=8, resblock_kernels=(3,), resblock_dilations=((1,),)
)
MODEL = UnitVocoderConfig(
    unit_dim=4, pitch_token_dim=3, style_token_dim=2, pitch=False, generator=HIFIGAN, pitch_predictor=None
)
VOCODER = UnitVocoderStageConfig(
    name="vocoder",
    units="units",
    pitch="pitch",
    pitch_tokens="codes",
    style_tokens="codes",
    model=MODEL,
    frames=16,
    losses=VocoderLossConfig(resolutions=((64, 16, 8),)),
    **ONE,
)
RUN = RunConfig(
    name="run",
    corpus=WorldConfig(),
    stages=(
        FrameUnitsConfig(name="units", features=MFCCFeaturesConfig(), kmeans=KMeansConfig(clusters=6)),
        PitchStageConfig(name="pitch", pitch=PitchConfig(hop_s=0.01)),
        PitchCodecStageConfig(name="codec", pitch="pitch", model=CODEC, segment_s=0.4, start_segments=4, **ONE),
        PitchCodesConfig(name="codes", codec="codec"),
        VOCODER,
    ),
)


@pytest.fixture(scope="module")
def context(tmp_path_factory):
    run = RunFolder(tmp_path_factory.mktemp("expressive"))
    made = VoicesContext(run, RUN.corpus, run.path / "data", progress=False)
    for stage in RUN.stages:
        run_stage(stage, made)
    return made


def test_the_model_knows_how_many_tokens_there_are_and_how_long_they_last(context):
    found, planned = VOCODER.vocoder(context), VOCODER.planned_model(RUN)
    for model in (found, planned):
        assert (model.units, model.pitch_tokens, model.style_tokens) == (6, 5, 5)
        assert (model.pitch_every, model.style_every) == (2, 2) and model.input_width == 4 + 3 + 2
    params = trained(context.finished("vocoder"))[1]["params"]["generator"]
    assert params["pitch_token"]["embedding"].shape == (5, 3) and params["style_token"]["embedding"].shape == (5, 2)
    assert {"pitch_token", "style_token"} <= set(VOCODER.outline(RUN).batch)


def test_a_segment_has_the_tokens_of_its_time(context):
    example, item = VOCODER.example(context), VOCODER._source(context)[0]
    codes = RecordSource(context.finished("codes").path / "units" / "train")[0]["pitch"]
    made = example.replace(frames=len(item["units"])).make()(item, np.random.default_rng(0))
    frames = int(made["frame_mask"].sum())
    wanted = np.append(np.repeat(codes, 2), [codes[-1]] * 4)[:frames]
    np.testing.assert_array_equal(made["pitch_token"][:frames], wanted)
    np.testing.assert_array_equal(made["style_token"], made["pitch_token"])


def test_tokens_are_heard(context):
    model, part = VOCODER.model_of(context.finished("vocoder"))
    params = trained(context.finished("vocoder"))[1]["params"][part]
    voice = UnitVoice(vocoder=model.make(), vocoder_params=params, frames_per_unit=3)
    runs, tokens = [np.asarray([1, 2, 3])], [np.asarray([0, 4, 4])]
    one = voice.decode(runs, pitch_token=tokens, style_token=tokens)[0]
    other = voice.decode(runs, pitch_token=[np.asarray([1, 4, 4])], style_token=tokens)[0]
    assert len(one) == len(other) == 9 * model.hop and np.abs(one - other).max() > 0
    np.testing.assert_allclose(one[-model.hop :], other[-model.hop :], atol=1e-6)
    with pytest.raises(UserError, match="style_token is None"):
        voice.decode(runs, pitch_token=tokens)


def test_tokens_that_do_not_fit_the_units_are_refused(context):
    thirds = VOCODER._every
    spec = PitchCodesConfig(name="codes", codec="codec").found_spec(context)
    with pytest.raises(UserError, match=r"vocoder.pitch_tokens: hop is 640: .* every 480 samples"):
        thirds(spec.replace(hop=480), "pitch", spec)
    assert thirds(spec.replace(hop=320), "pitch", spec) == 2
