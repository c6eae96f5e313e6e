"""DeSTA on real parts: layers of Whisper-base, Whisper-base's transcript, and a LLaMA of 15 M parameters with LoRA.

    python experiments/fetch/real_weights.py weights --models whisper-base stories15m
    python -m slm_jax train experiments/desta/real.py --workdir runs/desta_real
    python -m slm_jax evaluate runs/desta_real --utterances 100
    python experiments/desta/vectors.py runs/desta_real
    python -m slm_jax generate runs/desta_real --prompts q.wav --text "Describe the audio."

`SLM_JAX_REAL_WEIGHTS` names the folder of the weights, `weights` unless it is set. Captions, which say what is said and
how, then what is said and how asked apart. So small a text model answers nothing by itself: LoRA learns beside the
Q-Former, as DeSTA2.5 allows, and what is learnt are the world's own answers. Nobody who is heard in the test split is
heard in training.
"""

import os
from pathlib import Path

from slm_jax.adapters.layerwise_qformer import BERT, LayerwiseQFormerConfig
from slm_jax.core.part_source import PartSource
from slm_jax.data.mixture import MixtureConfig
from slm_jax.data.pipeline import PipelineConfig
from slm_jax.encoders.layer_states import LayersConfig
from slm_jax.encoders.whisper import WhisperEncoderConfig
from slm_jax.generation.whisper_words import Transcription
from slm_jax.nn.lora import LoRAConfig
from slm_jax.serving.speech_aware import AnswerDecoding
from slm_jax.systems.recipes.small_parts import UNKNOWN_SPEAKERS
from slm_jax.systems.recipes.speech_aware import speech_aware_run
from slm_jax.systems.speech_aware import desta
from slm_jax.text.templates import STORIES
from slm_jax.text.tokenizers import TokenizerFileConfig
from slm_jax.training.kept import KeptSpeechConfig
from slm_jax.training.loop import TrainConfig
from slm_jax.training.optimizer import OptimizerConfig
from slm_jax.training.post.clip_words import ClipWordsConfig
from slm_jax.training.post.speech_aware import SpeechAwareStageConfig

WEIGHTS = Path(os.environ.get("SLM_JAX_REAL_WEIGHTS", "weights"))
LM, READ = WEIGHTS / "stories15m", 288
CAPTIONS, ANSWERS = 100, 150
encoder = WhisperEncoderConfig(trim=True)
layers = LayersConfig(chosen=(3, 6))
captions = SpeechAwareStageConfig(
    name="captions",
    parts=(
        PartSource(path="frozen/encoder", source=str(WEIGHTS / "whisper-base"), take="encoder", expect=encoder),
        PartSource(path="frozen/lm", source=str(LM)),
    ),
    hears=(layers,),
    adapter=LayerwiseQFormerConfig(
        width=READ,
        layers=2,
        qformer=BERT.replace(
            context_width=encoder.width, width=encoder.width, heads=8, hidden=1024, dropout=0.0, attention_dropout=0.0
        ),
    ),
    heard=ClipWordsConfig(
        source=str(WEIGHTS / "whisper-base"), transcription=Transcription(language="en", max_new=40, rows=16)
    ),
    lora=LoRAConfig(targets="lm/.*/attention/(query|key|value)", rank=16, alpha=16.0),
    template=STORIES.replace(speech=("<start_audio>", "<end_audio>"), heard="{words}"),
    tokens=TokenizerFileConfig(path=str(LM / "tokenizer.json")),
    tasks=desta.CAPTION,
    clip_s=5.0,
    length=192,
    train=TrainConfig(steps=CAPTIONS, evaluate_every=100),
    batches=PipelineConfig(batch=8),
    optimizer=OptimizerConfig(learning_rate=1e-3, warmup_steps=20, betas=(0.9, 0.98), weight_decay=0.01),
)
tasks = MixtureConfig(parts=tuple(part for part in desta.TUNING.parts if part.name != "instructions"))
answers = desta.tuned(captions, ANSWERS).replace(tasks=tasks)
corpus = UNKNOWN_SPEAKERS.replace(hours=0.4, styles=("rate", "energy"))
config = speech_aware_run(
    "desta_real",
    corpus,
    (captions, answers),
    decoding=AnswerDecoding(max_new=40),
    keeps=KeptSpeechConfig(splits=("test",), kinds=("sentence",)),
)
