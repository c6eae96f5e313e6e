"""Codes among themselves: which codebook of which frame stands at which step of a sequence.

Table         what all schemes are: tables of (time, codebook), there and back  (`schemes.table`)
Parallel      every step holds all codebooks of one frame; temporal + depth      (`schemes.parallel`)
Delay         codebooks some steps later than their frame                        (`schemes.delay`)
Flattened     codebooks interleaved along time, or partly                        (`schemes.flattened`)
Coarse first  coarse codebooks of a stretch of time, then its fine ones          (`schemes.coarse_first`)
One row       codes as one row of ids, each book with ids of its own             (`schemes.one_row`)
Cascade       models in a row, each reading what others wrote (AudioLM)          (`schemes.cascade`)
"""
