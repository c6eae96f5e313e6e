"""Stages that learn from speech, from texts or from both: one file each, about forty lines of their own.

Frame units          k-means on MFCC or on a layer; units of the corpus   (`training.pre.frame_units`)
Unit BPE             byte pairs over the units of a stage                 (`training.pre.unit_bpe`)
Frame sample         features in host memory, what units are fitted on      (`training.pre.frame_sample`)
Prosody              units with durations and pitch                      (`training.pre.prosody`)
Masked prediction    HuBERT: predict the units of hidden frames           (`training.pre.masked_prediction`)
CTC                  the characters of transcribed speech                 (`training.pre.ctc`)
Unit LM              next unit                                            (`training.pre.unit_lm`)
Pitch                F0 of every utterance and its statistics             (`training.pre.pitch`)
Unit vocoder         units, F0 and speaker to a waveform                  (`training.pre.unit_vocoder`)
Codec                waveforms through codebooks and back                  (`training.pre.codec`)
Codec tokens         codes of the corpus, for language models             (`training.pre.codec_tokens`)
Durations            how long each unit lasts                             (`training.pre.durations`)
Text LM              next token of the corpus' texts                      (`training.pre.text_lm`)
Span corruption      hidden spans of the texts, as T5 learns              (`training.pre.span_corruption`)
Texts                what both share: tokens, a table of texts            (`training.pre.texts`)
"""
