"""Stages that learn from speech alone: one file each, about forty lines of their own.

Frame units          k-means on MFCC or on a layer, and the units of the whole corpus   (`training.pre.frame_units`)
Masked prediction    HuBERT: predict the units of hidden frames                         (`training.pre.masked_prediction`)
Unit LM              next unit                                                          (`training.pre.unit_lm`)
Unit vocoder         units, F0 and speaker to a waveform                                (`training.pre.unit_vocoder`)
Prosody              how long each unit lasts and how high it is spoken                 (`training.pre.prosody`)
"""
