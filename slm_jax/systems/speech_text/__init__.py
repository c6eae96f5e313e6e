"""Language models of speech and text together, p(speech, text).

Moshi       hears and speaks at once, its own words beside its codes  (`systems.speech_text.moshi`)
SpeechGPT   units behind text in one stream; a chain of modality      (`systems.speech_text.speechgpt`)
SpiRit-LM   words written or heard in turns, in one stream            (`systems.speech_text.spirit_lm`)
"""
