"""Decoding loops.

Sampling  SamplingConfig, shape_logits, draw                           (`generation.sampling`)
Rules     legal tokens by phase, and ends, as arrays                   (`generation.rules`)
Step      advance: one step of any decoder, forced or free             (`generation.advance`)
Decoding  generate, Generated: a loop over advance                     (`generation.decode`)
Schemes   continue_codes: what a scheme's table says of each step      (`generation.by_scheme`)
Layouts   told_row: text and codes, one known, both, or neither        (`generation.by_layout`)
Cascades  write_cascade: models that write one after the other       (`generation.by_cascade`)
Beams     beam_search, BeamConfig: the likeliest sequences             (`generation.beam`)
Whisper   clips heard, prefixes that go on under its rules             (`generation.whisper_reader`)
          what is said, window by window                               (`generation.whisper_words`)
Prompts   ids or vectors, checked and packed                           (`generation.prompts`)
"""
