"""Speech-aware text LMs, p(text | speech, text).

BESTOW        words that listen, offline or while a clip is still read          (`systems.speech_aware.bestow`)
DiscreteSLU   units of speech through a table and an adapter into a text LM     (`systems.speech_aware.discrete_slu`)
Qwen-Audio    tasks as tags, and Qwen2-Audio, which is asked in words           (`systems.speech_aware.qwen_audio`)
SALMONN       two encoders, a window Q-Former, Vicuna with LoRA, three stages   (`systems.speech_aware.salmonn`)
SLM           an adapter between a frozen encoder and a frozen T5               (`systems.speech_aware.slm`)
UniverSLU     Whisper tuned on many tasks, by specifiers or instructions        (`systems.speech_aware.universlu`)
WavPrompt     a tuned encoder that writes prompts for a frozen GPT-2            (`systems.speech_aware.wavprompt`)
"""
