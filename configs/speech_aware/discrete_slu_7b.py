"""DiscreteSLU: byte pairs of WavLM's units, an adapter, Mistral 7B with LoRA.

Source     Shon et al. 2024, arXiv 2406.09345
Command    python -m slm_jax train configs/speech_aware/discrete_slu_7b.py --workdir runs/discrete_slu_7b
Parts      in the folder `weights`; `discrete_slu.config(..., weights=...)` takes another
"""

from slm_jax.systems.speech_aware import discrete_slu

config = discrete_slu.config("7b")
