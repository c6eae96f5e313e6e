"""Codes among themselves: which codebook of which frame stands at which step of a sequence.

Table     schemes as tables of (time, codebook), there and back   (`schemes.table`)
Parallel  every step holds all codebooks of one frame             (`schemes.parallel`)
"""
