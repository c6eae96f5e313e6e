"""Real Whisper-base, tuned on six tasks of the world by specifiers and then in both forms.

    python experiments/fetch/real_weights.py weights whisper-base
    python -m slm_jax train experiments/universlu/base.py --workdir runs/universlu_base
    python -m slm_jax evaluate runs/universlu_base

`SLM_JAX_REAL_WEIGHTS` names the folder of the weights, `weights` unless it is set. Speakers of the test split are heard
in no other split.
"""

import os
from pathlib import Path

from slm_jax.systems.speech_aware import universlu

WEIGHTS = Path(os.environ.get("SLM_JAX_REAL_WEIGHTS", "weights"))
config = universlu.config("base", start_from=str(WEIGHTS / "whisper-base"))
config = config.replace(
    name="universlu_real_base",
    corpus=config.corpus.replace(speakers=48, split_by="speaker", test_share=0.1, dev_share=0.05),
)
