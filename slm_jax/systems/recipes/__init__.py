"""Recipes: stages, alone or in rows, that several systems share.

HuBERT's units    published_hubert, published_units      (`systems.recipes.hubert_units`)
Small parts       encoders and a text LM that twins train      (`systems.recipes.small_parts`)
A voice for them  published_vocoder                      (`systems.recipes.unit_voice`)
Answers           SpeechAwareConfig, speech_aware_run      (`systems.recipes.speech_aware`)
Parts of twins    letters_encoder, units_encoder, text_lm  (`systems.recipes.small_parts`)
"""
