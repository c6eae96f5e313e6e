"""The run of `real.py` with labels of a voice that are heard beside transcripts: loudness and rate.

    python experiments/fetch/real_weights.py weights --models whisper-base stories15m
    python experiments/qwen_audio/run.py runs/qwen_audio_voice --real --voice

Labels of one word count four times as much as words of a transcript, beside which nothing would be heard of them. What
is asked of a voice is loudness and rate, which can be told of anybody; a register cannot: the pitch of an unknown
speaker tells it in 61 of 100 cases at most.
"""

import runpy
from pathlib import Path

from slm_jax.core.part_source import PartSource
from slm_jax.systems.recipes.small_parts import UNKNOWN_SPEAKERS
from slm_jax.systems.recipes.speech_aware import SpeechAwareConfig, speech_aware_run
from slm_jax.systems.speech_aware import qwen_audio
from slm_jax.training.loop import TrainConfig
from slm_jax.training.post.speech_aware import SpeechAwareStageConfig

REAL = runpy.run_path(str(Path(__file__).with_name("real.py")))
COUNTS = 4.0
RATE = qwen_audio.LOUDNESS.replace(asks=("How fast is it?",), answers=("{speaking_rate}",))
by_tags = qwen_audio.shares(
    transcription=(0.35, qwen_audio.TAGGED_TRANSCRIPTION),
    energy=(0.2, qwen_audio.keyword("energy").replace(counts=COUNTS)),
    rate=(0.2, qwen_audio.keyword("speaking_rate").replace(counts=COUNTS)),
    question=(0.25, qwen_audio.TAGGED_QUESTION),
)
in_words = qwen_audio.shares(
    transcription=(0.3, qwen_audio.TRANSCRIPTION),
    energy=(0.2, qwen_audio.LOUDNESS.replace(counts=COUNTS)),
    rate=(0.2, RATE.replace(counts=COUNTS)),
    instructions=(0.3, qwen_audio.INSTRUCTION),
)
first = REAL["pretraining"]
assert isinstance(first, SpeechAwareStageConfig)  # for the type checker
pretraining = first.replace(
    tasks=by_tags,
    template=qwen_audio.tagged(by_tags),
    clip_s=6.0,
    train=TrainConfig(steps=700, evaluate_every=100),
)
learnt = PartSource(path="params/lm", source="stage:pretraining", take="lm", frozen=False)
chat = qwen_audio.chatting(pretraining, learnt).replace(
    tasks=in_words, length=240, train=TrainConfig(steps=500, evaluate_every=125)
)
corpus = UNKNOWN_SPEAKERS.replace(hours=2.5, instruction_hours=0.8, styles=("energy", "rate"))
config = speech_aware_run("qwen_audio_voice", corpus, (pretraining, chat), decoding=REAL["config"].decoding)


def prepared() -> SpeechAwareConfig:
    """The run, once the text model knows the tags."""
    REAL["prepared"]()
    return config
