"""Qwen2-Audio: Whisper large-v3, learning, in front of a frozen Qwen-7B, then the reverse.

Source     Chu et al. 2024, arXiv 2407.10759
Command    python -m slm_jax train configs/speech_aware/qwen2_audio.py --workdir runs/qwen2_audio
Parts      in the folder `weights`; `qwen_audio.config(..., weights=...)` takes another
"""

from slm_jax.systems.speech_aware import qwen_audio

config = qwen_audio.config("qwen2-audio")
