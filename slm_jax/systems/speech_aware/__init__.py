"""Speech-aware text LMs, p(text | speech, text).

Qwen-Audio  tasks as tags, and Qwen2-Audio, which is asked in words  (`systems.speech_aware.qwen_audio`)
"""
