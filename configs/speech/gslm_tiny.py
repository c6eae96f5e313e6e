"""GSLM, the tiny twin, on 48 minutes of the synthetic world: the recipe of `make demo`.

Source     Lakhotia et al. 2021, "On Generative Spoken Language Modeling from Raw Audio"
Command    python -m slm_jax train configs/speech/gslm_tiny.py --workdir runs/gslm_tiny
Hardware   two CPU cores
"""

from slm_jax.systems.speech import gslm

config = gslm.config("tiny")
