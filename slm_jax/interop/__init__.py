"""PyTorch weights in and out.

Folders      `load` and `export` of a folder as the hub lays it out  (`interop.model`)
Larger ones  from a hub folder to a model folder by layers           (`interop.streaming`, `interop.hub`)
Parts        folders of others or ours, opened leaf by leaf          (`interop.parts`)
             with dense kernels in int8                              (`interop.int8_parts`)
             a text LM with more tokens than it had                  (`interop.more_tokens`)
Families     what a config.json means and which table belongs to it  (`interop.family`, `interop.families`)
             GPT-2, OPT, LLaMA, Qwen2 and Mistral                    (`interop.family_gpt2`, `interop.family_opt`,
                                                                      `interop.family_llama`)
             a causal stage of Bark                                  (`interop.family_bark`)
             MusicGen's decoder; pGSLM's language model              (`interop.family_musicgen`,
                                                                      `interop.family_pgslm`)
             Moshi, a transformer over time and one within steps     (`interop.family_moshi`, `interop.moshi_config`)
             its marks behind its text's ids                         (`interop.moshi_marks`)
             T5 and mT5; T5's decoder alone, as in AudioLM           (`interop.family_t5`,
                                                                      `interop.family_t5_stack`)
             wav2vec 2.0, HuBERT, WavLM                              (`interop.family_ssl`, `interop.ssl_names`)
             and with a head over classes                            (`interop.family_ssl_classifier`)
             w2v-BERT 2.0                                            (`interop.family_w2v_bert`)
             FastConformer: Parakeet's encoder, with CTC too         (`interop.family_parakeet`)
             Whisper                                                 (`interop.family_whisper`)
             Qwen and Qwen-Audio, Qwen2-Audio                        (`interop.family_qwen`,
                                                                      `interop.family_qwen2_audio`)
             the Q-Former of BLIP-2 and SALMONN                      (`interop.family_qformer`)
             BEATs; GE2E, whose voice speaks                         (`interop.family_beats`, `interop.family_ge2e`)
             HiFi-GAN on mels and on units                           (`interop.family_hifigan`,
                                                                      `interop.family_unit_hifigan`)
             EnCodec; Mimi; DAC and SNAC                             (`interop.family_encodec`,
                                                                      `interop.family_mimi`, `interop.family_dac`)
             codes of F0 and units by a classifier, as in SpiRit-LM  (`interop.family_f0_vqvae`,
                                                                      `interop.family_linear_quantizer`)
             any codec as a tokenizer                                (`interop.codecs`)
             what codecs share                                       (`interop.codec_shapes`, `interop.dac_shapes`)
             abstract shapes of decoders, generators                 (`interop.decoder_shapes`,
                                                                      `interop.generator_shapes`)
             of models over several streams                          (`interop.stream_shapes`)
             and of speech-aware text LMs                            (`interop.speech_aware_shapes`)
Fields       a config.json of which nothing is dropped               (`interop.hub_config`)
Adapters     LoRA in the file form of peft                           (`interop.peft`)
Systems      what SALMONN, LTU-AS and WavLLM trained, as released    (`interop.salmonn`, `interop.ltu_as`,
                                                                      `interop.wavllm`)
             what DeSTA2 and DeSTA2.5 trained                        (`interop.desta`)
             what such files share                                   (`interop.trained_parts`)
             what BESTOW trained, under NeMo's names                 (`interop.bestow`)
Tables       names of a checkpoint <-> paths of our tree             (`interop.table`, `interop.transforms`,
                                                                      `interop.step_transforms`)
Engine       a table against shapes: checked, then done              (`interop.engine`)
Files        safetensors, npz and PyTorch files                      (`interop.readers`, `interop.safetensors`)
References   the PyTorch models that ours are held to                (`interop.references`, `interop.reference`)
             decoders, MusicGen's, T5's; encoders                    (`interop.reference_decoders`,
                                                                      `interop.reference_musicgen`,
                                                                      `interop.reference_moshi`,
                                                                      `interop.reference_pgslm`,
                                                                      `interop.reference_t5_stack`,
                                                                      `interop.reference_encoders`)
             vocoders                                                (`interop.reference_vocoders`,
                                                                      `interop.reference_hifigan`)
             w2v-BERT 2.0; Whisper                                   (`interop.reference_w2v_bert`,
                                                                      `interop.reference_whisper`)
             what is timed                                           (`interop.reference_bench`,
                                                                      `interop.reference_speech_aware`)
             models of several streams                               (`interop.reference_bench_streams`)
             codec and model that hear and speak at once             (`interop.reference_bench_duplex`)
             codecs that are timed; one in training                  (`interop.reference_bench_codecs`,
                                                                      `interop.reference_codec_training`)
"""
