"""WavPrompt in small, for longer than its tiny twin: can an encoder alone make a frozen text LM spell what it hears?

python -m slm_jax train experiments/wavprompt/config.py --workdir runs/wavprompt
python -m slm_jax evaluate runs/wavprompt
python -m slm_jax generate runs/wavprompt --prompts q.wav --text "what did the speaker say? "
"""

from slm_jax.systems.recipes.small_parts import UNKNOWN_SPEAKERS
from slm_jax.systems.speech_aware import wavprompt

STEPS = {"units": 800, "lm": 2000, "answers": 6000}
base = wavprompt.tiny(UNKNOWN_SPEAKERS.replace(hours=2.0))
stages = tuple(
    stage.replace(train=stage.train.replace(steps=STEPS[stage.name])) if stage.name in STEPS else stage
    for stage in base.stages
)
answers = stages[-1].replace(optimizer=wavprompt.tri_stage(1e-3, STEPS["answers"]))
config = base.replace(name="wavprompt_world", stages=(*stages[:-1], answers))
