"""GSLM, the tiny twin trained longer: two iterations of HuBERT, a vocoder with judges, on 96 minutes of the world.

Source     Lakhotia et al. 2021; HuBERT's second iteration: Hsu et al. 2021
Command    python -m slm_jax train configs/speech/gslm_world.py --workdir runs/gslm_world
           python -m slm_jax evaluate runs/gslm_world --thorough --seeds 3
Hardware   two CPU cores, about half an hour
Expect     units that beat every MFCC baseline in PNMI and phone purity; results in experiments/gslm_world
"""

from slm_jax.data.corpus import WorldConfig
from slm_jax.data.pipeline import PipelineConfig
from slm_jax.decoders.discriminators import tiny_discriminators
from slm_jax.objectives.vocoder import VocoderLossConfig
from slm_jax.systems.speech import gslm
from slm_jax.training.loop import TrainConfig
from slm_jax.training.optimizer import OptimizerConfig
from slm_jax.training.pre.frame_units import LayerOfStageConfig

base = gslm.tiny(corpus=WorldConfig(hours=1.6))
hubert, units, lm, vocoder = (base.stage(name) for name in ("hubert", "units", "lm", "vocoder"))

config = base.replace(
    name="gslm_world",
    stages=(
        base.stage("mfcc"),
        hubert.replace(name="hubert_1", train=TrainConfig(steps=1000)),
        units.replace(name="units_1", features=LayerOfStageConfig(stage="hubert_1", layer=4)),
        hubert.replace(name="hubert_2", targets="units_1", train=TrainConfig(steps=2500)),
        units.replace(features=LayerOfStageConfig(stage="hubert_2", layer=4)),
        lm.replace(train=TrainConfig(steps=800)),
        base.stage("pitch"),
        vocoder.replace(name="vocoder_1", train=TrainConfig(steps=2000)),
        vocoder.replace(
            start_from="vocoder_1",
            losses=VocoderLossConfig(spectral_weight=15.0),
            discriminators=tiny_discriminators(),
            train=TrainConfig(steps=400),
            batches=PipelineConfig(batch=8, seed=1),
            optimizer=OptimizerConfig(learning_rate=3e-4, warmup_steps=50, betas=(0.8, 0.99)),
            judge_optimizer=OptimizerConfig(learning_rate=1e-3, betas=(0.8, 0.99)),
        ),
        base.stage("durations"),
    ),
)
