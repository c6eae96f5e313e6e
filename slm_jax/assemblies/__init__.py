"""Parts that several systems share.

Speech-aware LM      encoders, an adapter, a text LM that reads what comes of it
                     (`assemblies.speech_aware_lm`)
                     LoRA that counts as much in it as what is asked says
                     (`assemblies.prompt_scaled`)
Whisper              an encoder and a decoder that listens to it, and its published sizes
                     (`assemblies.whisper`)
                     while it is trained: with a head of CTC
                     (`assemblies.tuned_whisper`)
Codec                encoder, quantizer, decoder, whole and step by step
                     (`assemblies.codec`)
                     published ones: SoundStream, EnCodec, Mimi, DAC, SNAC
                     (`assemblies.codec_presets`)
                     its latents as an encoder
                     (`assemblies.codec_latents`)
                     with its weights as a tokenizer, and codes in files
                     (`assemblies.codec_tokenizer`, `assemblies.codec_files`)
Pitch codec          F0 and voicing through a codebook, and that as a tokenizer
                     (`assemblies.pitch_codec`, `assemblies.pitch_tokenizer`)
Style tokenizer      the class or cluster that a classifier hears in every second of speech
                     (`assemblies.style_tokenizer`)
Phonetic tokenizer   features of a layer (or MFCC), treated, clustered: speech to units
                     (`assemblies.phonetic_tokenizer`)
Unit sequences       those units without repetitions, or byte pairs of them
                     (`assemblies.unit_sequences`)
Prosodic tokenizer   those units with their durations and pitch, as classes and as real numbers
                     (`assemblies.prosodic_tokenizer`)
"""
