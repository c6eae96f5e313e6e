"""TWIST-350M: 500 units at 25 Hz, the body of OPT-350M (305.7 M parameters with the table of units).

Source     Hassid et al. 2023; training recipe: slamkit (Maimon et al. 2025)
Command    python -m slm_jax convert hub:facebook/opt-350m data/models/opt-350m
           python -m slm_jax train configs/speech/twist_350m.py --workdir W --corpus.path MANIFEST.jsonl
Hardware   the paper: 8 V100, 10.8 billion tokens; not yet run here at this size
Expect     the paper's model, not this recipe's: sBLIMP 56.2
"""

from slm_jax.data.corpus import ManifestConfig
from slm_jax.systems.speech import twist

corpus = ManifestConfig(path="data/speech/manifest.jsonl")
config = twist.config("350m", start_from="data/models/opt-350m", corpus=corpus)
