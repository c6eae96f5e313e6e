"""SoundStream at 16 kHz as AudioLM uses it: twelve books at 50 Hz, 6 kb/s.

Source     Zeghidour et al. 2021, "SoundStream", section III (judges, losses and their weights, books dropped at
           random); Borsos et al. 2022, "AudioLM", for the rate and the books
Command    python -m slm_jax train configs/codecs/soundstream_16khz.py --workdir W --corpus.path MANIFEST.jsonl
Hardware   not said; planned for TPUs in experiments/tpu_plans, not yet run at this size
Differs    optimizer, batch, segments and steps are an interpretation: EnCodec's, which came after it. So are the width
           of the latents and the silence before the beginning. The judge of spectrograms has EnCodec's layers; spectra
           are added up over resolutions and are means over frames (the paper does not say over what)
"""

from slm_jax.assemblies.codec_presets import soundstream
from slm_jax.data.corpus import ManifestConfig
from slm_jax.data.pipeline import PipelineConfig
from slm_jax.decoders.discriminators import DiscriminatorsConfig
from slm_jax.decoders.spectral_discriminators import JudgesConfig, STFTDiscriminatorsConfig
from slm_jax.objectives.codec import CodecLossConfig
from slm_jax.systems.recipes.codec_run import CodecRunConfig
from slm_jax.training.loop import TrainConfig
from slm_jax.training.optimizer import OptimizerConfig
from slm_jax.training.pre.codec import CodecStageConfig

waveform_judges = DiscriminatorsConfig(
    periods=(),
    scales=3,
    scale_layers=(
        (16, 15, 1, 1),
        (64, 41, 4, 4),
        (256, 41, 4, 16),
        (1024, 41, 4, 64),
        (1024, 41, 4, 256),
        (1024, 5, 1, 1),
    ),
    spectral_first=False,
)
optimizer = OptimizerConfig(name="adam", learning_rate=3e-4, schedule="constant", betas=(0.5, 0.9), clip=None)
codec = CodecStageConfig(
    name="codec",
    model=soundstream(),
    segment_s=1.0,
    losses=CodecLossConfig(
        resolutions=tuple((2**power, 2 ** (power - 2), 64) for power in range(6, 12)),
        spectral=6.0,  # of the mean over six resolutions, which are added up there
        linear=True,
        waveform=0.0,
        adversarial=1.0,
        features=100.0,
        relative_features=False,
        commitment=1.0,
        hinge=True,
    ),
    judges=JudgesConfig(parts=(STFTDiscriminatorsConfig(n_ffts=(1024,)), waveform_judges)),
    train=TrainConfig(steps=1_000_000),
    batches=PipelineConfig(batch=64),
    optimizer=optimizer,
    judge_optimizer=optimizer,
)
config = CodecRunConfig(
    name="soundstream_16khz",
    corpus=ManifestConfig(path="data/speech/manifest.jsonl", rate_hz=16_000),
    stages=(codec,),
)
