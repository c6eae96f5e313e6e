"""Words and voices in one model: the tasks of `voice.py`, after a stage that learns words alone.

    python experiments/fetch/real_weights.py weights --models whisper-base stories15m
    python experiments/qwen_audio/run.py runs/qwen_audio_both --real --both

Labels that count more are learnt first, and then words are not found; so words come first, as long as `real.py` needs
for them, then labels beside them, which count twice.
"""

import runpy
from pathlib import Path

from slm_jax.systems.recipes.speech_aware import SpeechAwareConfig, speech_aware_run
from slm_jax.systems.speech_aware import qwen_audio
from slm_jax.training.loop import TrainConfig
from slm_jax.training.post.speech_aware import SpeechAwareStageConfig

VOICE = runpy.run_path(str(Path(__file__).with_name("voice.py")))
COUNTS = 2.0
words = qwen_audio.shares(
    transcription=(0.65, qwen_audio.TAGGED_TRANSCRIPTION), question=(0.35, qwen_audio.TAGGED_QUESTION)
)
by_tags = qwen_audio.shares(
    transcription=(0.4, qwen_audio.TAGGED_TRANSCRIPTION),
    energy=(0.2, qwen_audio.keyword("energy").replace(counts=COUNTS)),
    rate=(0.2, qwen_audio.keyword("speaking_rate").replace(counts=COUNTS)),
    question=(0.2, qwen_audio.TAGGED_QUESTION),
)
in_words = qwen_audio.shares(
    transcription=(0.4, qwen_audio.TRANSCRIPTION),
    energy=(0.15, qwen_audio.LOUDNESS.replace(counts=COUNTS)),
    rate=(0.15, VOICE["RATE"].replace(counts=COUNTS)),
    instructions=(0.3, qwen_audio.INSTRUCTION),
)
heard, chat = VOICE["pretraining"], VOICE["chat"]
assert isinstance(heard, SpeechAwareStageConfig) and isinstance(chat, SpeechAwareStageConfig)  # for the type checker
# the marks of all tasks from the start: a row's ids are the same in both stages
template = qwen_audio.tagged(by_tags)
first = heard.replace(name="words", tasks=words, template=template, train=TrainConfig(steps=450, evaluate_every=150))
pretraining = heard.replace(
    tasks=by_tags, template=template, goes_on="words", train=TrainConfig(steps=400, evaluate_every=100)
)
stages = (first, pretraining, chat.replace(tasks=in_words))
config = speech_aware_run("qwen_audio_both", VOICE["corpus"], stages, decoding=VOICE["config"].decoding)


def prepared() -> SpeechAwareConfig:
    """The run, once the text model knows the tags."""
    VOICE["prepared"]()
    return config
