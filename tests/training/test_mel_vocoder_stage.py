"""Training a mel vocoder: from nothing and from weights of a folder, with judges, and what it is judged by falls."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from slm_jax.audio.mel import LogMelConfig
from slm_jax.checkpoints.model_folder import save_model
from slm_jax.core.errors import UserError
from slm_jax.core.trees import flatten_by_path
from slm_jax.data.pipeline import PipelineConfig
from slm_jax.decoders.discriminators import DiscriminatorsConfig
from slm_jax.decoders.hifigan import HiFiGANConfig
from slm_jax.decoders.mel_vocoder import MelVocoderConfig
from slm_jax.objectives.vocoder import VocoderLossConfig
from slm_jax.training.gradient_stage import trained
from slm_jax.training.loop import TrainConfig
from slm_jax.training.metrics import read_metrics
from slm_jax.training.optimizer import OptimizerConfig
from slm_jax.training.pre.mel_vocoder import MelVocoderStageConfig
from slm_jax.training.stages import RunConfig
from tests.codecs import drawn_like
from tests.training.small_answers import CORPUS, MeasuringContext, carry_out, context_of

GENERATOR = HiFiGANConfig(
    upsample=(4, 4),
    upsample_kernels=(8, 8),
    channels=16,
    resblock_kernels=(3,),
    resblock_dilations=((1, 3),),
)
MEL = LogMelConfig(rate_hz=16_000, n_fft=64, window_length=64, hop=16, mels=10, padding="hop")
MODEL = MelVocoderConfig(mels=10, rate_hz=16_000, features=MEL, generator=GENERATOR)
STAGE = MelVocoderStageConfig(
    name="vocoder",
    model=MODEL,
    segment_s=0.05,
    losses=VocoderLossConfig(resolutions=((64, 16, 8), (128, 32, 0))),
    train=TrainConfig(steps=60, log_every=1, evaluate_every=60),
    batches=PipelineConfig(batch=4),
    optimizer=OptimizerConfig(learning_rate=1e-2, warmup_steps=0),
)
JUDGES = DiscriminatorsConfig(periods=(2,), period_widths=(4,), scales=0, scale_layers=())


def context_in(folder):
    plain = context_of(folder, kind=MeasuringContext)
    return MeasuringContext(plain.run, plain.corpus, plain.data_dir, progress=False)


def test_it_learns_and_judges_go_on_from_it(tmp_path):
    context = context_in(tmp_path)
    lines = read_metrics(carry_out(STAGE, context).path)
    losses = [line["loss"] for line in lines if "loss" in line]
    assert np.mean(losses[-5:]) < 0.6 * losses[0], losses
    (held_out,) = [line["evaluate/spectral"] for line in lines if "evaluate/spectral" in line]
    assert held_out < 0.7 * losses[0]
    judged = STAGE.replace(
        name="judged", start_from="vocoder", discriminators=JUDGES, train=TrainConfig(steps=2, log_every=1)
    )
    folder = carry_out(judged, context)
    logged = set().union(*read_metrics(folder.path))
    assert {"generator/spectral", "generator/adversarial", "generator/features", "judges/loss"} <= logged
    config, part = judged.model_of(folder)
    assert (
        config == MODEL and set(trained(folder)[1]["params"]) == {"generator", "discriminator"} and part == "generator"
    )


def test_it_begins_with_the_weights_of_a_folder(tmp_path):
    params = drawn_like(MODEL.make(), jax.ShapeDtypeStruct((1, 4, 10), jnp.float32))["params"]
    save_model(tmp_path / "published", MODEL, params)
    still = OptimizerConfig(learning_rate=1e-12, warmup_steps=0, schedule="constant")
    stage = STAGE.replace(weights=str(tmp_path / "published"), optimizer=still, train=TrainConfig(steps=1))
    found = trained(carry_out(stage, context_in(tmp_path / "run")))[1]["params"]["generator"]
    wanted = flatten_by_path(params)
    for path, leaf in flatten_by_path(found).items():
        np.testing.assert_allclose(leaf, wanted[path], atol=1e-6, err_msg=path)


def test_what_cannot_be_is_refused(tmp_path):
    with pytest.raises(UserError, match="spectrogram"):
        STAGE.replace(model=MODEL.replace(features=None))
    with pytest.raises(UserError, match="weights"):
        STAGE.replace(weights="somewhere", start_from="before")
    with pytest.raises(UserError, match="nowhere"):
        STAGE.replace(weights=str(tmp_path / "nowhere")).check_outside(None)


def test_plans_know_its_shapes():
    outline = STAGE.outline(RunConfig(name="run", corpus=CORPUS, stages=(STAGE,)))
    assert (
        outline.batch["samples"].shape == (4, 800)
        and outline.tokens == 4 * 50
        and outline.speech_s == pytest.approx(0.2)
    )
