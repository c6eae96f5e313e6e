"""HiFi-GAN with its judges on the units of the tiny GSLM, beside the fast generator of the same run.

Source     Kong et al. 2020 (generator, judges, losses, betas); Polyak et al. 2021 (units and F0 in)
Command    python -m slm_jax train configs/speech/gslm_hifigan.py --workdir runs/demo
           python experiments/gslm_hifigan/compare.py runs/demo
           Begun in the folder of `make demo` it takes that run's units and trains its three stages only; in a folder of
           its own it makes the units first. (`demo` itself then no longer fits that folder, `evaluate` does.)
Hardware   two CPU cores, about a quarter of an hour for the three stages
Expect     falling mel loss; the judged voice beside one trained as long without judges. Not the published quality,
           which takes hundreds of thousands of steps
"""

from slm_jax.decoders.discriminators import tiny_discriminators
from slm_jax.decoders.hifigan import HiFiGANConfig
from slm_jax.objectives.vocoder import hifigan_losses
from slm_jax.systems.speech import gslm
from slm_jax.training.loop import TrainConfig
from slm_jax.training.optimizer import OptimizerConfig

generator = HiFiGANConfig(
    channels=128,
    resblock="2",
    resblock_kernels=(3, 5, 7),
    resblock_dilations=((1, 2), (2, 6), (3, 12)),
)

base = gslm.tiny()
fast = base.stage("vocoder")

first = fast.replace(
    name="hifigan_mel",
    model=fast.model.replace(generator=generator, durations=None),
    losses=hifigan_losses(),
    train=TrainConfig(steps=1200),
    optimizer=OptimizerConfig(learning_rate=2e-3, warmup_steps=50, final_fraction=0.2, betas=(0.8, 0.99)),
)
longer = first.replace(
    start_from="hifigan_mel",
    train=TrainConfig(steps=800),
    batches=first.batches.replace(seed=1),
    optimizer=OptimizerConfig(learning_rate=4e-4, warmup_steps=50, betas=(0.8, 0.99)),
)

config = base.replace(
    stages=(
        *base.stages,
        first,
        longer.replace(name="hifigan_unjudged"),
        longer.replace(
            name="hifigan",
            discriminators=tiny_discriminators(),
            judge_optimizer=OptimizerConfig(learning_rate=1e-3, warmup_steps=50, betas=(0.8, 0.99)),
        ),
    ),
)
