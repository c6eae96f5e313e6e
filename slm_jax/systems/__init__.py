"""The named systems of the survey, each a short composition of parts.

Pure speech     GSLM, TWIST                                 (`systems.speech`)
Speech-aware    text LMs that hear                          (`systems.speech_aware`)
Speech and text Moshi, SpeechGPT, SpiRit-LM                 (`systems.speech_text`)
Recipes         stages that several systems share           (`systems.recipes`)
Catalogue       every system by name, with its sizes        (`systems.catalogue`)
Cards           what is known of a system unbuilt           (`systems.card`)
"""
