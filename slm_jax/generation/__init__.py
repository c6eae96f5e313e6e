"""Decoding loops.

Sampling  SamplingConfig, shape_logits, draw   (`generation.sampling`)
Decoding  generate, Generated                  (`generation.decode`)
"""
