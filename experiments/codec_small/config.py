"""A small streaming codec for speech at 16 kHz: 50 frames a second, 8 books of 1,024 for 4 kb/s, on two cores.

    python -m slm_jax train experiments/codec_small/config.py --workdir runs/codec_small
    python -m slm_jax evaluate runs/codec_small --utterances 16
    python -m slm_jax codec encode runs/codec_small a.wav a.codes

Log-mel frames through causal ConvNeXt blocks, codebooks that averages move, an inverse STFT: no judges yet. Half of the
segments are heard as through other microphones and lines. Speakers of the test split are heard in no other.
"""

from slm_jax.assemblies.codec import CodecConfig
from slm_jax.data.examples.waveform_segments import ChannelConfig
from slm_jax.data.pipeline import PipelineConfig
from slm_jax.decoders.spectral import SpectralDecoderConfig
from slm_jax.encoders.spectral import SpectralEncoderConfig
from slm_jax.quantizers.codebooks import CodebookConfig
from slm_jax.quantizers.residual import ResidualVQConfig
from slm_jax.systems.recipes.codec_run import CodecRunConfig
from slm_jax.systems.recipes.small_parts import UNKNOWN_SPEAKERS
from slm_jax.training.loop import TrainConfig
from slm_jax.training.optimizer import OptimizerConfig
from slm_jax.training.pre.codec import CodecStageConfig

model = CodecConfig(
    encoder=SpectralEncoderConfig(),
    decoder=SpectralDecoderConfig(),
    quantizer=ResidualVQConfig(width=64, books=8, codebook=CodebookConfig(size=1024, width=64), dropout=0.4),
    whole=True,
    rate_hz=16_000,
)
codec = CodecStageConfig(
    name="codec",
    model=model,
    segment_s=0.8,
    channel=ChannelConfig(share=0.5),
    train=TrainConfig(steps=6000, evaluate_every=1000),
    batches=PipelineConfig(batch=12),
    optimizer=OptimizerConfig(learning_rate=2e-3, betas=(0.8, 0.99), warmup_steps=100, weight_decay=0.01),
)
config = CodecRunConfig(name="codec_small", corpus=UNKNOWN_SPEAKERS.replace(hours=1.5), stages=(codec,))
