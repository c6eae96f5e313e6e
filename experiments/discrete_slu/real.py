"""DiscreteSLU on real parts: byte pairs of units of Whisper-base, an adapter, a LLaMA of 15 M parameters with LoRA.

    python experiments/fetch/real_weights.py weights --models whisper-base stories15m
    python -m slm_jax train experiments/discrete_slu/real.py --workdir runs/discrete_slu_real
    python -m slm_jax evaluate runs/discrete_slu_real --utterances 100

`SLM_JAX_REAL_WEIGHTS` names the folder of the weights, `weights` unless it is set. No self-supervised encoder can be
had without an account, so that the units are clusters of what Whisper's encoder gives. Nobody who is heard in the test
split is heard in training.
"""

import os
from pathlib import Path

from slm_jax.adapters.transformer import TransformerAdapterConfig
from slm_jax.core.part_source import PartSource
from slm_jax.data.pipeline import PipelineConfig
from slm_jax.encoders.whisper import WhisperEncoderConfig
from slm_jax.quantizers.kmeans import KMeansConfig
from slm_jax.quantizers.postprocess import PostprocessConfig
from slm_jax.serving.speech_aware import AnswerDecoding
from slm_jax.systems.recipes.small_parts import UNKNOWN_SPEAKERS
from slm_jax.systems.speech_aware import discrete_slu
from slm_jax.text.templates import STORIES
from slm_jax.text.tokenizers import TokenizerFileConfig
from slm_jax.training.loop import TrainConfig
from slm_jax.training.optimizer import OptimizerConfig
from slm_jax.training.pre.frame_units import FrameUnitsConfig, LayerOfPartConfig
from slm_jax.training.pre.unit_bpe import UnitBPEConfig

WEIGHTS = Path(os.environ.get("SLM_JAX_REAL_WEIGHTS", "weights"))
LM = WEIGHTS / "stories15m"
READ, PAIRS = 288, 1500
units = FrameUnitsConfig(
    name=discrete_slu.CLUSTERS,
    features=LayerOfPartConfig(
        part=PartSource(
            path="frozen/encoder",
            source=str(WEIGHTS / "whisper-base"),
            take="encoder",
            expect=WhisperEncoderConfig(trim=True),
        ),
        layer=6,
    ),
    kmeans=KMeansConfig(clusters=500, iterations=30),
    postprocess=PostprocessConfig(normalise="layer_norm"),
)
pairs = UnitBPEConfig(name=discrete_slu.BYTE_PAIRS, units=units.name, vocabulary=PAIRS)
answers = discrete_slu.answering(
    "bpe",
    discrete_slu.TASKS,
    ids=PAIRS,
    channels=READ,
    adapter=TransformerAdapterConfig(width=READ, layers=2, heads=4, hidden=768, sinusoids=True, dropout=0.0),
    parts=(PartSource(path="frozen/lm", source=str(LM)),),
    template=STORIES,
    tokens=TokenizerFileConfig(path=str(LM / "tokenizer.json")),
    clip_s=5.0,
    words=96,
    train=TrainConfig(steps=3000, evaluate_every=500),
    batches=PipelineConfig(batch=8),
    optimizer=OptimizerConfig(learning_rate=1e-3, warmup_steps=40, betas=(0.9, 0.98), weight_decay=0.01),
)
corpus = UNKNOWN_SPEAKERS.replace(hours=6.0, question_hours=1.0, instruction_hours=1.0)
config = discrete_slu.whole_run("discrete_slu_real", corpus, (units, pairs, answers), AnswerDecoding(max_new=48))
