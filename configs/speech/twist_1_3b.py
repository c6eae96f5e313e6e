"""TWIST-1.3B: 500 units at 25 Hz, the body of OPT-1.3B (1.21 billion parameters with the table of units).

Source     Hassid et al. 2023; training recipe: slamkit (Maimon et al. 2025)
Command    python -m slm_jax convert hub:facebook/opt-1.3b data/models/opt-1.3b
           python -m slm_jax train configs/speech/twist_1_3b.py --workdir W --corpus.path MANIFEST.jsonl
Hardware   the paper: 32 V100, 10.8 billion tokens; not yet run here at this size
Expect     the paper's model, not this recipe's: sBLIMP 57.0
"""

from slm_jax.data.corpus import ManifestConfig
from slm_jax.systems.speech import twist

corpus = ManifestConfig(path="data/speech/manifest.jsonl")
config = twist.config("1.3b", start_from="data/models/opt-1.3b", corpus=corpus)
