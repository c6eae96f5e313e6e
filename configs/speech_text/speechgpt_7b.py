"""SpeechGPT: LLaMA 7B with 1,000 units and six marks more, three stages (6.747 billion parameters, 33,006 rows).

Source     Zhang et al. 2023, arXiv 2305.11000; settings of the authors' scripts where they are public
Command    python -m slm_jax train configs/speech_text/speechgpt_7b.py --workdir W --corpus.path MANIFEST.jsonl
Parts      `mhubert-base` and `llama-7b` in the folder `weights`; `speechgpt.config(..., weights=...)` takes another
Hardware   the paper: 96 A100 for the first two stages, 8 for the third; not run here at this size
Needs      items with texts, and items with a spoken question and a spoken answer (`messages` of the manifest)
"""

from slm_jax.data.corpus import ManifestConfig
from slm_jax.systems.speech_text import speechgpt

config = speechgpt.config("7b", corpus=ManifestConfig(path="data/speech/manifest.jsonl"))
