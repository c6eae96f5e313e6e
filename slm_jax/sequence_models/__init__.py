"""Models of token sequences.

Decoder  one configurable transformer, whole and step by step          (`sequence_models.decoder`)
Config   its fields and their rules, and what makes it                 (`sequence_models.decoder_shape`,
                                                                        `sequence_models.decoder_config`)
Layer    attention and a feed-forward block                            (`sequence_models.decoder_layer`)
Pairs    an encoder and a decoder that listens to it                   (`sequence_models.encoder_decoder`)
Before   layers through which words listen to speech             (`sequence_models.listener`)
Presets  GPT-2, OPT, LLaMA, Qwen2, Mistral and MusicGen shapes          (`sequence_models.presets`)
         those of GSLM, pGSLM and AudioLM's stages
         T5, its version 1.1 and mT5                                   (`sequence_models.t5`)
Rows     expanded: a text model with ids for units and tags            (`sequence_models.expansion`)
Depth    a second stack over the entries of a step                     (`sequence_models.depth`,
                                                                        `sequence_models.temporal_depth`)
Streams  one stack over several streams, a head for each               (`sequence_models.multi_stream`,
                                                                        `sequence_models.over_streams`)
Grid     real numbers of a stream as ids, predicted by their mean      (`sequence_models.grid`)
"""
