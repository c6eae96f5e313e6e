"""Language models of speech and text together, p(speech, text).

Moshi      hears and speaks at once, its own words beside its codes      (`systems.speech_text.moshi`)
"""
