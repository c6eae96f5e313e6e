"""Recipes: stages, alone or in rows, that several systems share.

HuBERT's units    published_hubert, published_units      (`systems.recipes.hubert_units`)
Parts of twins    letters_encoder, units_encoder, text_lm, (`systems.recipes.small_parts`)
                  UNKNOWN_SPEAKERS
A voice for them  published_vocoder, fast_vocoder        (`systems.recipes.unit_voice`)
Pitch and style   expressive_tokens, expressive_voice      (`systems.recipes.expressive`)
A codec           CodecRunConfig                           (`systems.recipes.codec_run`)
                  small_codec                              (`systems.recipes.small_codec`)
                  rvqgan: how DAC is trained               (`systems.recipes.rvqgan`)
Its codes         CodeRunConfig: a language model of them  (`systems.recipes.code_run`)
Two sides         DuplexRunConfig: hearing and speaking    (`systems.recipes.duplex_run`)
One stream        OneStreamRunConfig: text and units       (`systems.recipes.one_stream`)
Answers           SpeechAwareConfig, speech_aware_run      (`systems.recipes.speech_aware`)
                  TranscribedConfig: a transcript beside it (`systems.recipes.transcribed`)
                  WhisperTasksConfig, whisper_tasks_run    (`systems.recipes.whisper_tasks`)
                  held_out_questions                       (`systems.recipes.held_out_questions`)
"""
