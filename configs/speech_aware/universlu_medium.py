"""UniverSLU: Whisper medium, tuned on tasks by specifiers and by instructions.

Source     Arora et al. 2024, arXiv 2310.02973
Command    python -m slm_jax train configs/speech_aware/universlu_medium.py --workdir runs/universlu_medium
"""

from slm_jax.systems.speech_aware import universlu

config = universlu.config("medium")
