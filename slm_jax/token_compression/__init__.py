"""Shorter token sequences, without weights.

Runs   dedup, repeat (under jit), dedup_row, repeat_row (ragged)   (`token_compression.dedup`)
CTC    segments_of: runs of labels, or without blanks              (`token_compression.ctc`)
CIF    fired: weights that add up to tokens                        (`token_compression.cif`)
BPE    UnitBPE: byte-pair encoding over unit ids                   (`token_compression.bpe`)
CTC    collapsed: what the best classes of frames say              (`token_compression.ctc_greedy`)
       forced_alignment: frames of every label                     (`token_compression.ctc_alignment`)
       word_times: seconds of every word                           (`token_compression.word_times`)
       labels with blanks between them                             (`token_compression.ctc_states`)
"""
