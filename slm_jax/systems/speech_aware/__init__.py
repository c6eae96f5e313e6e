"""Speech-aware text LMs, p(text | speech, text).

UniverSLU  Whisper tuned on many tasks, by specifiers or instructions   (`systems.speech_aware.universlu`)
"""
