"""Losses: terms, each a sum, a count and a weight, and metrics: see `core.contracts.Loss`.

Tokens     NextToken, cross-entropy whole or in chunks  (`objectives.next_token`, `objectives.cross_entropy`)
           the same over a base that is kept apart      (`objectives.over_parts`)
           several streams, each a term of its own      (`objectives.streams`)
           what is written, given what is read          (`objectives.sequence_to_sequence`)
           answers to speech and words                  (`objectives.answers`)
           text that is heard: attention, and CTC       (`objectives.heard_text`)
Speech     HuBERT's masked prediction                   (`objectives.masked_prediction`)
           ctc_nll, CTC: labels without times           (`objectives.ctc`)
           quantity: how many tokens weights fire       (`objectives.cif`)
           classes of windows                           (`objectives.classes`)
Waveforms  spectra and judges of a vocoder              (`objectives.vocoder`)
           the same of a codec, and its codebooks       (`objectives.codec`)
           a teacher for the first of them              (`objectives.taught`)
Pitch      F0 and voicing through a codebook            (`objectives.pitch_codes`)
Durations  frames of each unit                          (`objectives.duration`)
"""
