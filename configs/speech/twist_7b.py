"""TWIST-7B: 500 units at 25 Hz, the body of the first LLaMA-7B (6.48 billion parameters with the table of units).

Source     Hassid et al. 2023; training recipe: slamkit (Maimon et al. 2025)
Command    python -m slm_jax convert LLAMA_7B_FOLDER data/models/llama-7b
           python -m slm_jax train configs/speech/twist_7b.py --workdir W --corpus.path MANIFEST.jsonl
Hardware   the paper: 32 V100, 36 billion tokens; not yet run here at this size
Expect     the paper's model, not this recipe's: sBLIMP 59.0
"""

from slm_jax.data.corpus import ManifestConfig
from slm_jax.systems.speech import twist

corpus = ManifestConfig(path="data/speech/manifest.jsonl")
config = twist.config("7b", start_from="data/models/llama-7b", corpus=corpus)
