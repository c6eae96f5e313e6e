"""SLM: an adapter of 156 M between a frozen speech encoder and a frozen mT0-MT XXL.

Source     Wang et al. 2023, arXiv 2310.00230
Command    python -m slm_jax train configs/speech_aware/slm_13b.py --workdir runs/slm_13b
Parts      in the folder `weights`; `slm.config(..., weights=...)` takes another
"""

from slm_jax.systems.speech_aware import slm

config = slm.config("13b")
