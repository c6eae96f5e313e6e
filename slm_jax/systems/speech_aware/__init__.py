"""Speech-aware text LMs, p(text | speech, text).

DiscreteSLU   units of speech through a table and an adapter into a text LM     (`systems.speech_aware.discrete_slu`)
"""
