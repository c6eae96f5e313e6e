"""Published shapes of the family, and a small one that a CPU can train.

Sizes are those of the released checkpoints; tests compare the parameter counts with the transformers classes.
"""

from slm_jax.encoders.positional_conv import PositionalConvConfig
from slm_jax.encoders.ssl import SSLEncoderConfig
from slm_jax.nn.relative_bias import RelativeBiasConfig

LARGE = {
    "extractor_norm": "layer",
    "normalise_waveform": True,
    "pre_norm": True,
    "layers": 24,
    "width": 1024,
    "heads": 16,
    "hidden": 4096,
}


def wav2vec2_base() -> SSLEncoderConfig:
    """wav2vec 2.0 base (Baevski et al. 2020), 94 M parameters; its waveform is normalised, HuBERT-base's is not."""
    return SSLEncoderConfig(normalise_waveform=True)


def wav2vec2_large() -> SSLEncoderConfig:
    """wav2vec 2.0 large in the LV-60 form: layer norms in the extractor, pre-norm, convolutions with bias."""
    return SSLEncoderConfig(conv_bias=True, **LARGE)


def hubert_base() -> SSLEncoderConfig:
    """HuBERT base (Hsu et al. 2021), 94 M parameters; GSLM takes its layer 6."""
    return SSLEncoderConfig(layer_drop=0.05, feature_gradient=0.1)


def hubert_large() -> SSLEncoderConfig:
    """HuBERT large, 316 M parameters."""
    return SSLEncoderConfig(conv_bias=True, **LARGE)


def wavlm_base() -> SSLEncoderConfig:
    """WavLM base and base+ (Chen et al. 2022), 94 M parameters."""
    return SSLEncoderConfig(relative_bias=RelativeBiasConfig())


def wavlm_large() -> SSLEncoderConfig:
    """WavLM large, 316 M parameters; its convolutions have no bias."""
    return SSLEncoderConfig(relative_bias=RelativeBiasConfig(), **LARGE)


def log_mel_tiny() -> SSLEncoderConfig:
    """4 layers of 192 on a log-mel front end: about 2 M parameters, trains in two minutes on two CPU cores."""
    return SSLEncoderConfig(
        front_end="log_mel",
        conv_layers=((192, 3, 1), (192, 3, 2)),
        position=PositionalConvConfig(kernel=31, groups=0, weight_norm=False, form="unfold"),
        pre_norm=True,
        layers=4,
        width=192,
        heads=4,
        hidden=768,
        dropout=0.0,  # a few passes over the data do not overfit, and drawing masks costs a fifth of the step
        attention_dropout=0.0,
    )
