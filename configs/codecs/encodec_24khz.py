"""EnCodec at 24 kHz, up to 32 books, 24 kb/s.

Source     Défossez et al. 2022, "High Fidelity Neural Audio Compression", sections 3.4 and 4; audiocraft's
           `solver/compression` for what the paper leaves open (averages of the weights, the decay of the balancer);
           there weights are .1, 2, 4, 4 and steps 400,000, here they are the paper's
Command    python -m slm_jax train configs/codecs/encodec_24khz.py --workdir W --corpus.path MANIFEST.jsonl
Hardware   the paper: 8 A100 GPUs; planned for TPUs in experiments/tpu_plans, not yet run at this size
Differs    loudness is drawn for every segment without evening it out before, and a recording is mixed with the same
           others in every epoch; a code begins anew below a tenth of the mean use (there: below two uses)
"""

from slm_jax.assemblies.codec_presets import encodec
from slm_jax.data.corpus import ManifestConfig
from slm_jax.data.examples.waveform_segments import LOUDNESS
from slm_jax.data.mixed_sounds import MixedConfig
from slm_jax.data.pipeline import PipelineConfig
from slm_jax.decoders.spectral_discriminators import JudgesConfig, STFTDiscriminatorsConfig
from slm_jax.objectives.codec import CodecLossConfig
from slm_jax.systems.recipes.codec_run import CodecRunConfig
from slm_jax.training.loop import TrainConfig
from slm_jax.training.optimizer import OptimizerConfig
from slm_jax.training.pre.codec import CodecStageConfig

model = encodec(books=32)
optimizer = OptimizerConfig(name="adam", learning_rate=3e-4, schedule="constant", betas=(0.5, 0.9), clip=None)
codec = CodecStageConfig(
    name="codec",
    # 1.5, 3, 6, 12 and 24 kb/s, drawn for a batch
    model=model.replace(quantizer=model.quantizer.replace(dropout=1.0, counts=(2, 4, 8, 16, 32), alike=True)),
    segment_s=1.0,
    mixed=MixedConfig(),
    channel=LOUDNESS,
    losses=CodecLossConfig(
        resolutions=tuple((2**power, 2 ** (power - 2), 64) for power in range(5, 12)),
        spectral=1.0,
        squared=True,
        waveform=0.1,
        adversarial=3.0,
        features=3.0,
        commitment=1.0,
        hinge=True,
        balance=0.999,
    ),
    judges=JudgesConfig(parts=(STFTDiscriminatorsConfig(),)),
    judges_move=2 / 3,
    train=TrainConfig(steps=600_000, ema_decay=0.99),
    batches=PipelineConfig(batch=64),
    optimizer=optimizer,
    judge_optimizer=optimizer,
)
config = CodecRunConfig(
    name="encodec_24khz",
    corpus=ManifestConfig(path="data/speech/manifest.jsonl", rate_hz=24_000),
    stages=(codec,),
)
