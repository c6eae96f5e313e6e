"""SLM's tiny text model behind a real Whisper-base: an adapter alone learns to let a frozen T5 hear.

Source     Wang et al. 2023, "SLM: Bridge the thin gap between speech and text foundation models"
Command    python experiments/fetch/real_weights.py weights --models whisper-base
           python -m slm_jax train experiments/slm/real.py --workdir runs/slm_real
           python -m slm_jax evaluate runs/slm_real --utterances 100
Hardware   two CPU cores
Compare    experiments/slm/config.py: an encoder that knows letters only, a Transformer as the adapter, fewer hours

As in the published size Whisper stands in the place of USM, and every frame is kept. The text model learns from the
texts of the corpus first; nobody who is heard in the test split is heard in training. The corpus is that of
`experiments/speech_aware_real`. `SLM_JAX_REAL_WEIGHTS` names the folder of the weights, `weights` unless it is set.
"""

import os
import runpy
from pathlib import Path

from slm_jax.adapters.chain import ChainConfig
from slm_jax.adapters.gain import GainConfig
from slm_jax.adapters.mlp import MLPAdapterConfig
from slm_jax.core.part_source import PartSource
from slm_jax.encoders.whisper import WhisperEncoderConfig
from slm_jax.systems.speech_aware.slm import LOUD
from slm_jax.training.loop import TrainConfig

WEIGHTS = Path(os.environ.get("SLM_JAX_REAL_WEIGHTS", "weights"))
HERE = Path(__file__).parent
tiny = runpy.run_path(str(HERE / "config.py"))["config"]
corpus = runpy.run_path(str(HERE.parent / "speech_aware_real" / "config.py"))["corpus"]
lm, instructed, _, answers = tiny.stages
READ = lm.model.width
heard = PartSource(
    path="frozen/encoder",
    source=str(WEIGHTS / "whisper-base"),
    take="encoder",
    expect=WhisperEncoderConfig(trim=True),
)
plain = MLPAdapterConfig(width=READ, hidden=1024, stack=5, norm=True)
answers = answers.replace(
    parts=(heard, answers.parts[-1]),
    # not the twin's Transformer: a plain map stands at 1.8 nats where that one needs three times the steps
    adapter=ChainConfig(parts=(plain, GainConfig(width=READ, start=LOUD))),
    clip_s=8.0,
    train=TrainConfig(steps=6000, evaluate_every=300),
)
config = tiny.replace(name="slm_real", corpus=corpus, stages=(lm, instructed, answers))
