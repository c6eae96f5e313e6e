"""A codec of a run's own, small enough to be trained in minutes, for language models of its codes."""

from slm_jax.assemblies.codec import CodecConfig
from slm_jax.data.pipeline import PipelineConfig
from slm_jax.decoders.spectral import SpectralDecoderConfig
from slm_jax.encoders.spectral import SpectralEncoderConfig
from slm_jax.quantizers.codebooks import CodebookConfig
from slm_jax.quantizers.residual import ResidualVQConfig
from slm_jax.training.loop import TrainConfig
from slm_jax.training.optimizer import OptimizerConfig
from slm_jax.training.pre.codec import CodecStageConfig
from slm_jax.training.pre.codec_tokens import CodecTokensConfig


def small_codec(
    books: int = 6, codes: int = 256, steps: int = 3000, stride: int = 1
) -> tuple[CodecStageConfig, CodecTokensConfig]:
    """A codec of 50 frames a second that two cores train in a quarter of an hour, and its codes: 2.4 kb/s.

    `stride`: of its frames that become one.
    """
    quantizer = ResidualVQConfig(width=64, books=books, codebook=CodebookConfig(size=codes, width=64), dropout=0.2)
    codec = CodecStageConfig(
        name="codec",
        model=CodecConfig(
            encoder=SpectralEncoderConfig(),
            decoder=SpectralDecoderConfig(),
            quantizer=quantizer,
            stride=stride,
            whole=True,
            rate_hz=16_000,
        ),
        segment_s=0.8,
        train=TrainConfig(steps=steps, evaluate_every=500),
        batches=PipelineConfig(batch=12),
        optimizer=OptimizerConfig(
            learning_rate=2e-3, betas=(0.8, 0.99), warmup_steps=100, weight_decay=0.01, final_fraction=0.1
        ),
    )
    return codec, CodecTokensConfig(name="codes", source="stage:codec")
