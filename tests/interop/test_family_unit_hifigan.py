"""Unit vocoders: fairseq's config.json, Seamless' one, the order of inputs, what they may not say."""

import jax
import numpy as np
import pytest

from slm_jax.core.errors import UserError
from slm_jax.core.trees import count_parameters
from slm_jax.decoders.hifigan import HiFiGANConfig
from slm_jax.decoders.istft_vocoder import ISTFTVocoderConfig
from slm_jax.decoders.predictors import PredictorConfig
from slm_jax.decoders.unit_vocoder import UnitVocoderConfig
from slm_jax.interop.engine import export_params, export_shapes
from slm_jax.interop.families import FAMILIES, family_of
from slm_jax.interop.model import export, load

FAIRSEQ = {
    "resblock": "1",
    "upsample_rates": [5, 4, 4, 2, 2],
    "upsample_kernel_sizes": [11, 8, 8, 4, 4],
    "upsample_initial_channel": 512,
    "resblock_kernel_sizes": [3, 7, 11],
    "resblock_dilation_sizes": [[1, 3, 5], [1, 3, 5], [1, 3, 5]],
    "num_embeddings": 500,
    "embedding_dim": 128,
    "model_in_dim": 128,
    "segment_size": 8960,
    "code_hop_size": 320,
    "f0": False,
    "num_mels": 80,
    "num_freq": 1025,
    "n_fft": 1024,
    "hop_size": 256,
    "win_size": 1024,
    "dur_prediction_weight": 1.0,
    "dur_predictor_params": {
        "encoder_embed_dim": 128,
        "var_pred_hidden_dim": 128,
        "var_pred_kernel_size": 3,
        "var_pred_dropout": 0.5,
    },
    "sampling_rate": 16000,
    "fmin": 0,
    "fmax": 8000,
    "fmax_for_loss": None,
    "num_workers": 4,
    "dist_config": {"dist_backend": "nccl", "dist_url": "env://"},
}
PUBLISHED = UnitVocoderConfig(
    units=500, pitch=False, voicing=False, log_f0_mean=0.0, log_f0_std=1.0, pitch_predictor=None
)
GENERATOR = HiFiGANConfig(
    upsample=(3, 2),
    upsample_kernels=(7, 4),
    channels=8,
    resblock_kernels=(3, 5),
    resblock_dilations=((1, 3), (1, 2)),
)
VOICES = UnitVocoderConfig(
    units=11,
    unit_dim=6,
    speakers=3,
    speaker_dim=6,
    voicing=False,
    log_f0_mean=5.1,
    log_f0_std=0.3,
    generator=GENERATOR,
    durations=PredictorConfig(width=4),
    pitch_predictor=None,
)
EXPRESSIVE = VOICES.replace(
    pitch=False,
    log_f0_mean=0.0,
    log_f0_std=1.0,
    pitch_tokens=5,
    pitch_token_dim=6,
    pitch_every=2,
    style_tokens=4,
    style_token_dim=6,
    style_every=7,
    styles=2,
    style_dim=6,
)
SEAMLESS = VOICES.replace(
    pitch=False,
    voicing=True,
    log_f0_mean=5.2,
    log_f0_std=0.35,
    speaker_dim=5,
    languages=4,
    language_dim=2,
    generator=GENERATOR.replace(weight_norm=False),
    durations=PredictorConfig(),
)


def drawn(config: UnitVocoderConfig) -> dict:
    """Parameters that are all different."""
    rng = np.random.default_rng(0)
    abstract = FAMILIES["unit_hifigan"].abstract(config)
    return jax.tree.map(lambda leaf: rng.normal(size=leaf.shape).astype(leaf.dtype), abstract)


def test_published_settings_become_ours_and_have_their_size():
    """13.41 M numbers with 500 units and the predictor, lengths of the weight norm not counted."""
    family = family_of(FAIRSEQ)
    config = family.read_config(FAIRSEQ)
    assert family.name == "unit_hifigan"
    assert config == PUBLISHED
    plain = family.abstract(config.replace(generator=config.generator.replace(weight_norm=False)))
    assert round(count_parameters(plain) / 1e6, 2) == 13.41
    names = export_shapes(family.table(config, "fairseq"), family.abstract(config))
    assert names["dict.weight"] == (500, 128)
    assert names["ups.0.weight_g"] == (512, 1, 1)
    assert names["dur_predictor.conv2.0.weight"] == (128, 128, 3)
    assert names["dur_predictor.ln1.weight"] == (128,)
    assert names["dur_predictor.proj.weight"] == (1, 128)


def test_the_25_hz_vocoder_takes_its_rates_from_the_file():
    rates = {"upsample_rates": [5, 4, 4, 4, 2], "upsample_kernel_sizes": [11, 8, 8, 8, 4], "code_hop_size": 640}
    assert family_of(FAIRSEQ).read_config(FAIRSEQ | rates).hop == 640
    with pytest.raises(UserError, match="code_hop_size is 640"):
        family_of(FAIRSEQ).read_config(FAIRSEQ | {"code_hop_size": 640})


@pytest.mark.parametrize("config", [VOICES, EXPRESSIVE, SEAMLESS], ids=["voices", "expressive", "code_hifigan"])
def test_export_and_import_are_inverse(config, tmp_path):
    params = drawn(config)
    export(config, params, tmp_path / "hub")
    read_config, read_params = load(tmp_path / "hub")
    assert read_config == config
    jax.tree.map(np.testing.assert_array_equal, read_params, params)


def test_seamless_reads_the_language_first():
    """Inputs of `conv_pre`: ours are unit, speaker, language; theirs language, unit, speaker."""
    params = drawn(SEAMLESS)
    written = dict(export_params(FAMILIES["code_hifigan"].table(SEAMLESS, "transformers"), params))
    ours = params["generator"]["conv_pre"]["kernel"].transpose(2, 1, 0)
    np.testing.assert_array_equal(written["hifi_gan.conv_pre.weight"][:, 2:], ours[:, :11])
    np.testing.assert_array_equal(written["hifi_gan.conv_pre.weight"][:, :2], ours[:, 11:])


def test_spirit_lms_tokens_of_pitch_and_style_have_tables_and_rates():
    hops = {"code_hop_size": 320, "f0_hop_size": 1280, "style_hop_size": 8000}
    told = {"num_f0_tokens": 64, "num_style_tokens": 100, "multispkr": True, "num_speakers": 4, "model_in_dim": 512}
    config = family_of(FAIRSEQ).read_config(FAIRSEQ | hops | told)
    assert (config.pitch_tokens, config.pitch_every, config.style_tokens, config.style_every) == (64, 4, 100, 25)
    assert (config.input_width, config.styles) == (512, 0)
    names = export_shapes(FAMILIES["unit_hifigan"].table(config), FAMILIES["unit_hifigan"].abstract(config))
    assert names["f0_dict.weight"] == (64, 128) and names["style_dict.weight"] == (100, 128)
    assert names["conv_pre.weight_v"] == (512, 512, 7)
    base = FAIRSEQ | {"multistyle": True, "num_styles": 26, "model_in_dim": 256}
    assert family_of(base).read_config(base).styles == 26
    with pytest.raises(UserError, match="f0_hop_size is"):
        family_of(FAIRSEQ).read_config(FAIRSEQ | told | {"f0_hop_size": 100})


def test_f0_needs_the_numbers_that_normalised_it():
    """No published config.json tells them, and guessed ones would be heard."""
    pitched = FAIRSEQ | {"f0": True, "model_in_dim": 129}
    with pytest.raises(UserError, match=r"log_f0_mean is None.*log_f0_std is None"):
        family_of(FAIRSEQ).read_config(pitched)
    config = family_of(FAIRSEQ).read_config(pitched | {"log_f0_mean": 5.0, "log_f0_std": 0.25})
    assert (config.pitch, config.voicing, config.input_width) == (True, False, 129)


def test_everything_unsupported_is_named():
    wrong = {"f0_quant_num_bin": 32, "vqvae": True, "embedder_params": {"a": 1}, "model_in_dim": 384, "novel": 1}
    with pytest.raises(UserError) as error:
        family_of(FAIRSEQ).read_config(FAIRSEQ | wrong)
    for name in wrong:
        assert f"{name} is " in str(error.value)
    predictor = FAIRSEQ["dur_predictor_params"] | {"var_pred_kernel_size": 5}
    with pytest.raises(UserError, match="var_pred_kernel_size is 5"):
        family_of(FAIRSEQ).read_config(FAIRSEQ | {"dur_predictor_params": predictor})
    seamless = FAMILIES["code_hifigan"].write_config(SEAMLESS)
    for name, value in {"vocoder_num_langs": 0, "variance_predictor_kernel_size": 5, "novel": 1}.items():
        with pytest.raises(UserError, match=f"{name} is {value}"):
            FAMILIES["code_hifigan"].read_config(seamless | {name: value})


def test_fields_of_the_translator_are_not_the_vocoders():
    seamless = FAMILIES["code_hifigan"].write_config(SEAMLESS)
    rest = {"t2u_vocab_size": 10_082, "speech_encoder_layers": 24, "vocab_size": 256_102, "max_new_tokens": 256}
    assert FAMILIES["code_hifigan"].read_config(seamless | rest | {"is_encoder_decoder": True}) == SEAMLESS


def test_what_no_form_can_say_is_refused():
    fast = UnitVocoderConfig(generator=ISTFTVocoderConfig())
    for name in ("unit_hifigan", "code_hifigan"):
        with pytest.raises(UserError, match="generator is ISTFTVocoderConfig"):
            FAMILIES[name].write_config(fast)
    with pytest.raises(UserError, match="voicing: True -> False"):
        FAMILIES["unit_hifigan"].write_config(VOICES.replace(voicing=True))
    with pytest.raises(UserError, match="languages: 4 -> 0"):
        FAMILIES["unit_hifigan"].write_config(SEAMLESS)
    with pytest.raises(UserError, match="speaker_dim: 5 -> 6"):
        FAMILIES["unit_hifigan"].write_config(VOICES.replace(speaker_dim=5))
    with pytest.raises(UserError, match="pitch_tokens: 5 -> 0"):
        FAMILIES["code_hifigan"].write_config(SEAMLESS.replace(pitch_tokens=5))
