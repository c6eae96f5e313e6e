"""TWIST, the tiny twin: stories15M, which tells stories in writing, learns the units of 48 minutes of the world.

Source     Hassid et al. 2023, "Textually Pretrained Speech Language Models"; weights: llama2.c, MIT
Command    python experiments/fetch/real_weights.py data/real_weights --models stories15m
           python -m slm_jax train configs/speech/twist_tiny.py --workdir runs/twist_tiny
Hardware   two CPU cores
Compare    experiments/twist_warm_start: the same model on the same units with and without the weights
"""

from slm_jax.systems.speech import twist

config = twist.config("tiny", start_from="data/real_weights/stories15m")
