"""Both config.json forms of HiFi-GAN on mels, and the names of its weights."""

import jax
import numpy as np
import pytest

from slm_jax.core.errors import UserError
from slm_jax.core.trees import count_parameters
from slm_jax.decoders.hifigan import HiFiGANConfig, hifigan_v1, hifigan_v2, hifigan_v3
from slm_jax.decoders.mel_vocoder import MelVocoderConfig
from slm_jax.interop.engine import export_params, export_shapes
from slm_jax.interop.families import FAMILIES, family_of
from slm_jax.interop.model import export, load

V1 = {
    "resblock": "1",
    "num_gpus": 0,
    "batch_size": 16,
    "learning_rate": 0.0002,
    "adam_b1": 0.8,
    "adam_b2": 0.99,
    "lr_decay": 0.999,
    "seed": 1234,
    "upsample_rates": [8, 8, 2, 2],
    "upsample_kernel_sizes": [16, 16, 4, 4],
    "upsample_initial_channel": 512,
    "resblock_kernel_sizes": [3, 7, 11],
    "resblock_dilation_sizes": [[1, 3, 5], [1, 3, 5], [1, 3, 5]],
    "segment_size": 8192,
    "num_mels": 80,
    "num_freq": 1025,
    "n_fft": 1024,
    "hop_size": 256,
    "win_size": 1024,
    "sampling_rate": 22050,
    "fmin": 0,
    "fmax": 8000,
    "fmax_for_loss": None,
    "num_workers": 4,
    "dist_config": {"dist_backend": "nccl", "dist_url": "tcp://localhost:54321", "world_size": 1},
}
"""The published settings; those of V2 and V3 differ from them by these:"""
V2 = {"upsample_initial_channel": 128}
V3 = {
    "resblock": "2",
    "upsample_rates": [8, 8, 4],
    "upsample_kernel_sizes": [16, 16, 8],
    "upsample_initial_channel": 256,
    "resblock_kernel_sizes": [3, 5, 7],
    "resblock_dilation_sizes": [[1, 2], [2, 6], [3, 12]],
}
SPEECHT5 = {
    "model_type": "speecht5_hifigan",
    "architectures": ["SpeechT5HifiGan"],
    "initializer_range": 0.01,
    "leaky_relu_slope": 0.1,
    "model_in_dim": 80,
    "normalize_before": True,
    "resblock_dilation_sizes": [[1, 3, 5], [1, 3, 5], [1, 3, 5]],
    "resblock_kernel_sizes": [3, 7, 11],
    "sampling_rate": 16000,
    "torch_dtype": "float32",
    "transformers_version": "4.25.0.dev0",
    "upsample_initial_channel": 512,
    "upsample_kernel_sizes": [8, 8, 8, 8],
    "upsample_rates": [4, 4, 4, 4],
}
TINY = MelVocoderConfig(
    mels=5,
    rate_hz=16_000,
    features=None,
    generator=HiFiGANConfig(
        upsample=(3, 2),
        upsample_kernels=(7, 4),
        channels=12,
        resblock_kernels=(3, 5),
        resblock_dilations=((1, 3), (1, 2, 4)),
        weight_norm=False,
    ),
)


def drawn(config: MelVocoderConfig) -> dict:
    """Parameters that are all different."""
    rng = np.random.default_rng(0)
    return jax.tree.map(
        lambda leaf: rng.normal(size=leaf.shape).astype(leaf.dtype), FAMILIES["hifigan"].abstract(config)
    )


@pytest.mark.parametrize(
    ("changes", "generator"), [({}, hifigan_v1()), (V2, hifigan_v2()), (V3, hifigan_v3())], ids=["V1", "V2", "V3"]
)
def test_published_settings_become_the_presets(changes, generator):
    hub = V1 | changes
    assert family_of(hub).name == "hifigan"
    config = family_of(hub).read_config(hub)
    assert config == MelVocoderConfig(generator=generator)
    written = FAMILIES["hifigan"].write_config(config)
    assert {name: hub[name] for name in written} == written


def test_v1_has_the_published_size_and_names():
    """234 tensors, 13,926,017 numbers without the lengths of the weight norm."""
    config = MelVocoderConfig()
    abstract = FAMILIES["hifigan"].abstract(config)
    shapes = export_shapes(FAMILIES["hifigan"].table(config, "original"), abstract)
    assert len(shapes) == 234
    assert shapes["ups.0.weight_v"] == (512, 256, 16)
    assert shapes["ups.0.weight_g"] == (512, 1, 1)
    assert shapes["resblocks.11.convs2.2.weight_v"] == (32, 32, 11)
    assert shapes["conv_post.bias"] == (1,)
    plain = FAMILIES["hifigan"].abstract(config.replace(generator=hifigan_v1().replace(weight_norm=False)))
    assert count_parameters(plain) == 13_926_017
    light = MelVocoderConfig(generator=hifigan_v3())
    names = export_shapes(FAMILIES["hifigan"].table(light, "original"), FAMILIES["hifigan"].abstract(light))
    assert names["resblocks.8.convs.1.weight_v"] == (32, 32, 7)
    assert not any("convs1" in name for name in names)


def test_transformers_settings_become_ours():
    family = family_of(SPEECHT5)
    config = family.read_config(SPEECHT5)
    assert family.name == "speecht5_hifigan"
    assert config.normalise
    assert (config.mels, config.rate_hz, config.hop, config.features) == (80, 16_000, 256, None)
    assert not config.generator.weight_norm
    fastspeech = {**SPEECHT5, "model_type": "fastspeech2_conformer_hifigan"}
    del fastspeech["sampling_rate"]
    assert family_of(fastspeech).read_config(fastspeech) == config.replace(rate_hz=22_050)


@pytest.mark.parametrize("normalise", [False, True])
def test_export_and_import_are_inverse_in_transformers_form(normalise, tmp_path):
    config = TINY.replace(normalise=normalise)
    params = drawn(config)
    export(config, params, tmp_path / "hub")
    read_config, read_params = load(tmp_path / "hub")
    assert read_config == config
    jax.tree.map(np.testing.assert_array_equal, read_params, params)


@pytest.mark.parametrize("resblock", ["1", "2"])
def test_export_and_import_are_inverse_in_the_original_form(resblock, tmp_path):
    generator = TINY.generator.replace(resblock=resblock, weight_norm=True)
    recipe = MelVocoderConfig().features.replace(mels=5, rate_hz=16_000, hop=6, n_fft=64, window_length=32)
    config = TINY.replace(generator=generator, features=recipe)
    params = drawn(config)
    export(config, params, tmp_path / "hub")
    read_config, read_params = load(tmp_path / "hub")
    assert read_config == config
    jax.tree.map(np.testing.assert_array_equal, read_params, params)


def test_a_normed_generator_goes_to_transformers_with_plain_weights():
    normed = TINY.replace(generator=TINY.generator.replace(weight_norm=True))
    params = drawn(normed)
    written = dict(export_params(FAMILIES["speecht5_hifigan"].table(normed, "transformers"), params))
    assert not any("weight_g" in name for name in written)
    ours = params["generator"]["up_0"]
    kernel = ours["weight_g"] * ours["weight_v"] / np.sqrt(np.square(ours["weight_v"]).sum((0, 2), keepdims=True))
    np.testing.assert_allclose(written["upsampler.0.weight"], kernel.transpose(1, 2, 0), rtol=1e-5)


def test_everything_unsupported_is_named():
    wrong = {**V1, "hop_size": 300, "leaky_relu_slope": 0.2, "gin_channels": 256, "resblock": "3"}
    with pytest.raises(UserError) as error:
        FAMILIES["hifigan"].read_config(wrong)
    for name in ("hop_size is 300", "leaky_relu_slope is 0.2", "gin_channels is 256", "resblock is '3'"):
        assert name in str(error.value)


def test_what_a_form_can_not_say_is_refused():
    with pytest.raises(UserError, match="resblock: 2 -> 1"):
        FAMILIES["speecht5_hifigan"].write_config(MelVocoderConfig(generator=hifigan_v3()))
    with pytest.raises(UserError, match="features is None"):
        FAMILIES["hifigan"].write_config(TINY)
    with pytest.raises(UserError, match="normalise: True -> False"):
        FAMILIES["hifigan"].write_config(MelVocoderConfig(normalise=True))
    htk = MelVocoderConfig().features.replace(mel_scale="htk")
    with pytest.raises(UserError, match=r"features\.mel_scale: htk -> slaney"):
        FAMILIES["hifigan"].write_config(MelVocoderConfig(features=htk))
