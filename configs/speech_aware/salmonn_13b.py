"""SALMONN: Whisper large-v2 and BEATs, a window Q-Former, Vicuna 13B with LoRA.

Source     Tang et al. 2023, arXiv 2310.13289
Command    python -m slm_jax train configs/speech_aware/salmonn_13b.py --workdir runs/salmonn_13b
Parts      in the folder `weights`; `salmonn.config(..., weights=...)` takes another
"""

from slm_jax.systems.speech_aware import salmonn

config = salmonn.config("13b")
