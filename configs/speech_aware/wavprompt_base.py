"""WavPrompt: wav2vec 2.0 base, tuned, in front of a frozen GPT-2.

Source     Gao et al. 2022, arXiv 2203.15863
Command    python -m slm_jax train configs/speech_aware/wavprompt_base.py --workdir runs/wavprompt_base
Parts      in the folder `weights`; `wavprompt.config(..., weights=...)` takes another
"""

from slm_jax.systems.speech_aware import wavprompt

config = wavprompt.config("base")
