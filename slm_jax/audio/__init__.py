"""Signal: files, transforms, features, pitch, rates and pictures. No weights, no Flax.

Files       read_audio, write_wav, resample, check_signal, AudioError    (`audio.files`)
Streams     Resampler: another rate, piece by piece                      (`audio.resampler`)
Formats     suffixes of files that are read, and of sound that is not    (`audio.formats`)
Headers     what a WAV promised, so that a cut one is seen               (`audio.riff`)
Transforms  stft, istft, griffin_lim                                     (`audio.stft`)
Mel         LogMelConfig, mel_filterbank, whisper and HiFi-GAN recipes   (`audio.mel`)
Kaldi       kaldi_fbank, kaldi_mfcc, mfcc (39 numbers), 50 Hz alignment  (`audio.kaldi`)
Pitch       f0 (autocorrelation, Viterbi)                                (`audio.pitch`)
            relative to its mean, as networks read it                    (`audio.pitch_features`)
Rates       sample and frame counts, masks of frames                     (`audio.rates`)
Windows     long recordings cut where it is quiet                        (`audio.windows`)
Plots       loss curves, spectrogram with units, F0, waveform            (`audio.plots`)
"""
