"""Encoders: waveforms to frames.

Family      SSLEncoderConfig, SSLEncoder, EncoderOutput                        (`encoders.ssl`)
Presets     wav2vec2_base, wav2vec2_large, hubert_base, hubert_large,
            wavlm_base, wavlm_large, log_mel_tiny                              (`encoders.ssl_presets`)
Training    HubertPretrainingConfig: an encoder with a head over clusters     (`encoders.ssl_pretraining`)
            CTCEncoderConfig: an encoder with a head over labels and blank    (`encoders.ssl_ctc`)
Front ends  WaveformFrontEnd, LogMelFrontEnd, normalise_rows                   (`encoders.feature_extractor`)
Inside      PositionalConv, RelativeBias, BiasGate, SSLLayer                   (`encoders.positional_conv`,
                                                                `encoders.relative_bias`, `encoders.ssl_layer`)
"""
