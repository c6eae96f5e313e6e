"""Speech-aware text LMs, p(text | speech, text).

DiscreteSLU   units of speech through a table and an adapter into a text LM     (`systems.speech_aware.discrete_slu`)
SLM           an adapter between a frozen encoder and a frozen T5               (`systems.speech_aware.slm`)
"""
