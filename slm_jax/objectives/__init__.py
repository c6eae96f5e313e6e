"""Losses: each returns a sum, a count and metrics (`core.contracts.Loss`).

Tokens       NextToken, cross-entropy whole or in chunks   (`objectives.next_token`, `objectives.cross_entropy`)
Speech       HuBERT's masked prediction                    (`objectives.masked_prediction`)
Waveforms    spectra and judges of a vocoder               (`objectives.vocoder`)
Durations    frames of each unit                           (`objectives.duration`)
"""
