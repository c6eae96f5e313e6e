"""Modality adapters: from the frames of an encoder to what a language model reads. One contract for lengths and masks.

None          units as rows of the language model's own table         (`adapters.rows`)
Linear        frame by frame, or over small stacks of frames          (`adapters.linear`)
MLP           two maps over stacks of frames                          (`adapters.mlp`)
Pooling       means of neighbouring frames                            (`adapters.pool`)
Convolution   strided, plain or gated, with a bottleneck              (`adapters.conv`)
Transformer   a few layers over all frames                            (`adapters.transformer`)
Conformer     a few layers, fewer frames where wanted (BESTOW)         (`adapters.conformer`)
Q-Former      learnt queries look at all frames                       (`adapters.qformer`)
              at one window of frames each                            (`adapters.window_qformer`)
              at the frames of one CTC segment each (AlignFormer)     (`adapters.alignformer`)
CTC           means over runs of equal labels, or without blanks      (`adapters.ctc`)
CIF           one vector for each token, by weights that add up       (`adapters.cif`)
Ends          two learnt vectors around the frames of a clip          (`adapters.ends`)
Gain          a learnt factor for each channel                        (`adapters.gain`)
Composition   one after the other; two encoders side by side          (`adapters.chain`, `adapters.joined`)
Windows       neighbouring frames as one, by a reshape                (`adapters.windows`)
"""
