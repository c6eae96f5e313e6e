"""SLM's tiny twin whose adapter reads every frame, 50 a second, also those that the CTC head calls blank.

Source     Wang et al. 2023, "SLM: Bridge the thin gap between speech and text foundation models"
Command    python -m slm_jax train experiments/slm/every_frame.py --workdir runs/slm_every_frame
           python -m slm_jax evaluate runs/slm_every_frame --utterances 40
Hardware   two CPU cores
Compare    experiments/slm/config.py
"""

from slm_jax.systems.recipes.small_parts import UNKNOWN_SPEAKERS
from slm_jax.systems.speech_aware import slm

corpus = UNKNOWN_SPEAKERS.replace(hours=1.0, question_hours=0.4, instruction_hours=0.6)
config = slm.config("tiny", blanks=False, corpus=corpus)
config = config.replace(name="slm_every_frame", stages=(*config.stages[:-1], config.stages[-1].replace(length=440)))
