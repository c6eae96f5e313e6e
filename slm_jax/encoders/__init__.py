"""Encoders: waveforms to frames.

Output      EncoderOutput: what all of them give                               (`encoders.output`)
Speech      SSLEncoderConfig, SSLEncoder                                       (`encoders.ssl`)
            wav2vec2_base, wav2vec2_large, hubert_base, hubert_large,
            wavlm_base, wavlm_large, log_mel_tiny                              (`encoders.ssl_presets`)
            W2VBERTConfig, W2VBERT, w2v_bert_2, w2v_bert_audiolm,
            w2v_bert_tiny                                                      (`encoders.w2v_bert`)
            WhisperEncoderConfig, WhisperEncoder                               (`encoders.whisper`)
            FastConformerConfig, FastConformer: whole, or chunk by chunk       (`encoders.fastconformer`)
Audio       BEATsConfig, BEATs, beats_base, beats_tiny                         (`encoders.beats`)
Voices      SpeakerEncoderConfig, SpeakerEncoder, SpeakerEmbedder              (`encoders.speaker`)
Codecs      SEANetEncoderConfig: EnCodec, Mimi, SoundStream                    (`encoders.seanet`)
            DACEncoderConfig: DAC, SNAC                                        (`encoders.dac`)
            SpectralEncoderConfig: log-mel frames, the fast one                (`encoders.spectral`)
Tracks      TrackEncoderConfig: F0 with voicing                                (`encoders.track`)
Around one  AroundEncoderConfig: what all of these pass on                     (`encoders.around`)
            WeightedLayersConfig: a learnt mixture of its layers               (`encoders.weighted_layers`)
            LayersConfig: several of its layers side by side                   (`encoders.layer_states`)
            ChunkedEncoderConfig: clips longer than its window                 (`encoders.chunked`)
            RollingEncoderConfig: chunk by chunk, each encoded anew            (`encoders.rolling`)
Units       UnitEmbeddingConfig: a vector for each unit, no waveform           (`encoders.unit_embedding`)
Training    HubertPretrainingConfig: an encoder with a head over clusters      (`encoders.ssl_pretraining`)
            CTCEncoderConfig: an encoder with a head over labels and blank     (`encoders.ssl_ctc`)
            SSLClassifierConfig: one over classes of windows, such as styles   (`encoders.ssl_classifier`)
            SpanMasksConfig: frames and channels masked in fine-tuning         (`encoders.span_masks`)
Front ends  WaveformFrontEnd, LogMelFrontEnd, normalise_rows                   (`encoders.feature_extractor`)
            SpectrogramPatches                                                 (`encoders.spectrogram_patches`)
            stacked_fbank                                                      (`encoders.stacked_fbank`)
            PreemphasisedMelConfig: NeMo's spectra                             (`encoders.preemphasised_mel`)
Inside      PositionalConv, BiasGate, SSLLayer                                 (`encoders.positional_conv`,
                                                                     `encoders.bias_gate`, `encoders.ssl_layer`)
            ConformerLayer                                                     (`encoders.conformer_layer`)
"""
