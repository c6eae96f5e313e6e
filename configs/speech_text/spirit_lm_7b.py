"""SpiRit-LM base: LLaMA 2 7B with 501 units and two marks more (6.743 billion parameters, 32,512 rows).

Source     Nguyen et al. 2024, arXiv 2402.05755; no training code is public
Command    python -m slm_jax train configs/speech_text/spirit_lm_7b.py --workdir W --corpus.path MANIFEST.jsonl
Parts      `llama-2-7b` in the folder `weights`; `spirit_lm.config(..., weights=...)` takes another
Hardware   the paper: 64 A100, 100,000 steps; not run here at this size
Needs      words with their times for the interleaved part (`words`, `word_start_s`, `word_end_s` of an item)
"""

from slm_jax.data.corpus import ManifestConfig
from slm_jax.systems.speech_text import spirit_lm

config = spirit_lm.config("7b", corpus=ManifestConfig(path="data/speech/manifest.jsonl"))
