"""Speech-aware text LMs, p(text | speech, text).

SALMONN    two encoders, a window Q-Former, Vicuna with LoRA, three stages   (`systems.speech_aware.salmonn`)
WavPrompt  a tuned encoder that writes prompts for a frozen GPT-2            (`systems.speech_aware.wavprompt`)
"""
