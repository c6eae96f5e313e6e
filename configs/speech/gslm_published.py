"""GSLM at the sizes of the paper: HuBERT base in two iterations, layer 6, 100 units, 12 layers of 1024, HiFi-GAN.

Source     Lakhotia et al. 2021; HuBERT: Hsu et al. 2021; unit HiFi-GAN: Polyak et al. 2021
Command    python -m slm_jax train configs/speech/gslm_published.py --workdir W --corpus manifest:PATH
Hardware   a TPU slice; what fits where is planned ahead of time, not yet run at this size
"""

from slm_jax.systems.speech import gslm

config = gslm.config("published")
