"""SLM's tiny twin on two hours of the world: does an adapter alone let a frozen text model hear people unknown to it?

Source     Wang et al. 2023, "SLM: Bridge the thin gap between speech and text foundation models"
Command    python -m slm_jax train experiments/slm/config.py --workdir runs/slm
           python -m slm_jax evaluate runs/slm --utterances 40
Hardware   two CPU cores
Compare    experiments/slm/every_frame.py: the same without leaving out the frames of blanks
"""

from slm_jax.judges.tasks import TasksJudge
from slm_jax.systems.recipes.small_parts import UNKNOWN_SPEAKERS
from slm_jax.systems.speech_aware import slm

corpus = UNKNOWN_SPEAKERS.replace(hours=2.5, question_hours=0.5, instruction_hours=0.6, styles=("rate", "energy"))
config = slm.config("tiny", corpus=corpus)
# what the frozen language model makes of the same items in writing: the adapter cannot do better
mixture = config.stage("instructed").mixture
plain = tuple(part.replace(example=part.example.replace(stutter=1)) for part in mixture.parts)
written = TasksJudge(name="written", tasks=mixture.replace(parts=plain))
config = config.replace(judges=(*config.judges, written))
