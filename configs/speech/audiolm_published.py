"""AudioLM at the sizes of the paper: 1,024 units, SoundStream at 6 kb/s, three stages of 12 layers of 1024.

Source     Borsos et al. 2022; learning rates are ours
Command    python -m slm_jax train configs/speech/audiolm_published.py --workdir W --corpus manifest:PATH
Hardware   a TPU slice; what fits where is planned ahead of time, not yet run at this size
"""

from slm_jax.systems.speech import audiolm

config = audiolm.config("published")
