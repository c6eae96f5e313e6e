"""Shapes for tests that need some decoder, encoder or vocoder: equal programs come from the compile cache."""

from slm_jax.assemblies.whisper import WhisperConfig, whisper_decoder
from slm_jax.audio.mel import whisper_log_mel
from slm_jax.decoders.hifigan import HiFiGANConfig
from slm_jax.decoders.istft_vocoder import ISTFTVocoderConfig
from slm_jax.encoders.beats import BEATsConfig
from slm_jax.encoders.positional_conv import PositionalConvConfig
from slm_jax.encoders.ssl import SSLEncoderConfig
from slm_jax.encoders.w2v_bert import W2VBERTConfig
from slm_jax.encoders.whisper import WhisperEncoderConfig
from slm_jax.nn.relative_bias import RelativeBiasConfig
from slm_jax.nn.relative_key import RelativeKeyConfig
from slm_jax.sequence_models.decoder_config import DecoderConfig

DECODER = DecoderConfig(vocabulary=32, layers=1, width=8, heads=2, hidden=16, positions="rope")

LIGHT = PositionalConvConfig(kernel=5, groups=0, weight_norm=False, form="unfold")
_ENCODER = {"layers": 2, "width": 16, "heads": 2, "hidden": 32, "position": LIGHT}
ENCODERS = {
    "waveform": SSLEncoderConfig(
        conv_layers=((8, 10, 5), (8, 8, 4), (8, 4, 4)),
        normalise_waveform=True,
        relative_bias=RelativeBiasConfig(buckets=8, max_distance=10),
        **_ENCODER,
    ),
    "log_mel": SSLEncoderConfig(front_end="log_mel", conv_layers=((8, 3, 1), (8, 3, 2)), pre_norm=True, **_ENCODER),
}
"""One for each front end; with normalised waveforms and relative bias, and with norms before the layers."""

BEATS = BEATsConfig(patch=8, patch_width=8, relative_bias=RelativeBiasConfig(buckets=8, max_distance=10), **_ENCODER)

W2V_BERT = W2VBERTConfig(
    mels=20, layers=2, width=16, heads=2, hidden=32, kernel=3, position=RelativeKeyConfig(left=3, right=2)
)

WHISPER = WhisperConfig(
    encoder=WhisperEncoderConfig(mel=whisper_log_mel(20), layers=2, width=16, heads=2, hidden=32, max_frames=16),
    decoder=whisper_decoder(41, 2, 16, 2).replace(max_positions=24),
)
"""A window of 5,120 samples."""

_ISTFT = {"widths": (12, 8), "blocks": (1, 1), "upsample": (2,), "n_fft": 32, "istft_hop": 8}
GENERATORS = {
    "hifigan": HiFiGANConfig(
        upsample=(4, 2), upsample_kernels=(8, 4), channels=8, resblock_kernels=(3,), resblock_dilations=((1, 2),)
    ),
    "istft": ISTFTVocoderConfig(excitation="none", **_ISTFT),
    "harmonic istft": ISTFTVocoderConfig(**_ISTFT),
}
