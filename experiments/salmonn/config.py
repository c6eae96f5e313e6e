"""SALMONN's three stages in small, for longer than its tiny twin: does the model do more after each of them?

    python -m slm_jax train experiments/salmonn/config.py --workdir runs/salmonn
    python -m slm_jax evaluate runs/salmonn
    python -m slm_jax generate runs/salmonn --prompts q.wav --text "Please describe the audio."

Nobody who is heard in the test split is heard in training.
"""

from slm_jax.systems.recipes.small_parts import UNKNOWN_SPEAKERS
from slm_jax.systems.speech_aware import salmonn

STEPS = {"letters": 1200, "units": 800, "lm": 1200, "pretraining": 3000, "instruction": 3000, "activation": 60}
corpus = UNKNOWN_SPEAKERS.replace(hours=1.5, question_hours=0.5, instruction_hours=1.0, styles=("rate", "energy"))
base = salmonn.tiny(corpus)
stages = tuple(
    stage.replace(train=stage.train.replace(steps=STEPS[stage.name])) if stage.name in STEPS else stage
    for stage in base.stages
)
config = base.replace(name="salmonn_world", stages=stages)
