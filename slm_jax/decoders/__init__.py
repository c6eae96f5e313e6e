"""From tokens and features to waveforms.

Unit vocoder     UnitVocoderConfig, UnitVocoder, initialise        (`decoders.unit_vocoder`)
Mel vocoder      MelVocoderConfig, MelVocoder                      (`decoders.mel_vocoder`)
Generators       HiFiGANConfig                                     (`decoders.hifigan`)
                 ISTFTVocoderConfig, the fast one                  (`decoders.istft_vocoder`)
Codecs           SEANetDecoderConfig: EnCodec, Mimi, SoundStream   (`decoders.seanet`)
                 DACDecoderConfig: DAC, SNAC                       (`decoders.dac`)
                 SpectralDecoderConfig: an inverse STFT            (`decoders.spectral`)
Tracks           TrackDecoderConfig: F0 with voicing               (`decoders.track`)
Excitation       harmonics of F0 and noise                         (`decoders.excitation`)
Predictors       durations, F0 and voicing of units                (`decoders.predictors`)
Length           units and durations to frames, static shapes      (`decoders.length`)
Discriminators   multi-period, multi-scale (training only)         (`decoders.discriminators`)
                 of complex spectrograms, whole and in bands       (`decoders.spectral_discriminators`)
"""
