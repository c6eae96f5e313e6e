"""Speech-aware text LMs, p(text | speech, text).

BESTOW        words listen to a FastConformer, all at once or at a pace      (`systems.speech_aware.bestow`)
DeSTA         Whisper's layers through a Q-Former beside its transcript (`systems.speech_aware.desta`)
DiscreteSLU   units of speech through a table and an adapter into a text LM     (`systems.speech_aware.discrete_slu`)
LTU-AS        all layers of Whisper beside its transcript, a curriculum of three    (`systems.speech_aware.ltu_as`)
Qwen-Audio    tasks as tags, and Qwen2-Audio, which is asked in words           (`systems.speech_aware.qwen_audio`)
SALMONN       two encoders, a window Q-Former, Vicuna with LoRA, three stages   (`systems.speech_aware.salmonn`)
SLM           an adapter between a frozen encoder and a frozen T5               (`systems.speech_aware.slm`)
UniverSLU     Whisper tuned on many tasks, by specifiers or instructions        (`systems.speech_aware.universlu`)
WavLLM        two encoders, LoRA that counts as much as what is asked says     (`systems.speech_aware.wavllm`)
WavPrompt     a tuned encoder that writes prompts for a frozen GPT-2            (`systems.speech_aware.wavprompt`)
"""
