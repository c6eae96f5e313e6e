"""Shorter token sequences, without weights.

Runs   dedup, repeat (under jit), dedup_row, repeat_row (ragged)   (`token_compression.dedup`)
CTC    segments_of: runs of labels, or without blanks              (`token_compression.ctc`)
BPE    UnitBPE: byte-pair encoding over unit ids                   (`token_compression.bpe`)
"""
