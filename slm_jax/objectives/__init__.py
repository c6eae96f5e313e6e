"""Losses: each returns a sum, a count and metrics (`core.contracts.Loss`).

Tokens       NextToken, cross-entropy whole or in chunks   (`objectives.next_token`, `objectives.cross_entropy`)
Speech       HuBERT's masked prediction                    (`objectives.masked_prediction`)
Waveforms    vocoder GAN                                   (`objectives.vocoder_gan`)
"""
