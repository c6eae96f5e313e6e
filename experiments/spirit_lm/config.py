"""SpiRit-LM's twin on an hour and a half of the world, whose words have times.

Command    python -m slm_jax train experiments/spirit_lm/config.py --workdir runs/spirit_lm
Hardware   two CPU cores; about two hours are expected, nothing was timed
"""

from slm_jax.data.corpus import WorldConfig
from slm_jax.judges.losses import LossesJudge
from slm_jax.judges.one_stream import OneStreamJudge
from slm_jax.judges.pairs import PairsJudge
from slm_jax.judges.text_continuation import TextContinuationJudge
from slm_jax.systems.speech_text import spirit_lm

STEPS = {"lm": 800, "turns": 5000, "vocoder": 1200, "units": 700}
made = spirit_lm.tiny(WorldConfig(hours=1.5))


def longer(stage):
    """The stage with its own number of steps."""
    if stage.name not in STEPS:
        return stage
    return stage.replace(train=stage.train.replace(steps=STEPS[stage.name]))


config = made.replace(
    name="spirit_lm",
    stages=tuple(map(longer, made.stages)),
    judges=(PairsJudge(), TextContinuationJudge(), OneStreamJudge(whisper="weights/whisper-base"), LossesJudge()),
)
