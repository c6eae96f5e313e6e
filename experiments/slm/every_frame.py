"""SLM's tiny twin whose adapter reads every frame, 50 a second, also those that the CTC head calls blank.

Source     Wang et al. 2023, "SLM: Bridge the thin gap between speech and text foundation models"
Command    cp -r runs/slm/stages/{lm,instructed,letters} runs/slm_every_frame/stages/   # or all is trained again
           python -m slm_jax train experiments/slm/every_frame.py --workdir runs/slm_every_frame
           python -m slm_jax evaluate runs/slm_every_frame --utterances 100
Hardware   two CPU cores
Compare    experiments/slm/config.py
"""

from slm_jax.judges.tasks import TasksJudge
from slm_jax.systems.recipes.small_parts import UNKNOWN_SPEAKERS
from slm_jax.systems.speech_aware import slm

corpus = UNKNOWN_SPEAKERS.replace(hours=2.5, question_hours=0.5, instruction_hours=0.6, styles=("rate", "energy"))
config = slm.config("tiny", blanks=False, corpus=corpus)
answers = config.stage("answers").replace(length=168)
written = TasksJudge(name="written", tasks=config.stage("instructed").mixture)
config = config.replace(name="slm_every_frame", stages=(*config.stages[:-1], answers), judges=(*config.judges, written))
