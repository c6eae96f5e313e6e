"""SpeechGPT's twin on two and a half hours of the world, questions beside notes that hold the answer.

Command    python -m slm_jax train experiments/speechgpt/config.py --workdir runs/speechgpt
Hardware   two CPU cores; about four hours are expected, nothing was timed
"""

from slm_jax.data.corpus import WorldConfig
from slm_jax.judges.losses import LossesJudge
from slm_jax.judges.one_stream import OneStreamJudge
from slm_jax.judges.tasks import TasksJudge
from slm_jax.systems.speech_text import speechgpt

STEPS = {"lm": 800, "ma": 400, "cm": 6000, "com": 2000, "vocoder": 1200, "units": 700}
made = speechgpt.tiny(WorldConfig(hours=1.0, question_hours=1.5, speakers=4))


def longer(stage):
    """The stage with its own number of steps."""
    if stage.name not in STEPS:
        return stage
    return stage.replace(train=stage.train.replace(steps=STEPS[stage.name]))


config = made.replace(
    name="speechgpt",
    stages=tuple(map(longer, made.stages)),
    judges=(
        TasksJudge(tasks=speechgpt.judged(True)),
        OneStreamJudge(answers=speechgpt.NOTES, whisper="weights/whisper-base"),
        LossesJudge(),
    ),
)
