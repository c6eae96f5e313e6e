"""pGSLM at the sizes of the paper, durations and pitch as real numbers: 12 layers of 1024 over three streams.

Source     Kharitonov et al. 2021
Command    python -m slm_jax train configs/speech/pgslm_continuous.py --workdir W --corpus manifest:PATH
Hardware   a TPU slice; what fits where is planned ahead of time, not yet run at this size
"""

from slm_jax.systems.speech import pgslm

config = pgslm.config("continuous")
