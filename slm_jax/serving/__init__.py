"""How a trained system is talked to.

Unit speech LM     speech in, speech out, over one stream of units      (`serving.unit_speech_lm`)
Prosodic one       the same over units, durations and pitch             (`serving.prosodic_speech_lm`)
Cascaded one       models in a row over units and codes                 (`serving.cascade_speech_lm`)
Of codes           a codec's codes in any order, speech in and out      (`serving.code_speech_lm`)
Of text and codes  writes what it hears, goes on in both, speaks texts  (`serving.text_code_speech_lm`)
Unit voice         what both speak with                                 (`serving.unit_voice`)
Transcriber        speech in, its words out: Whisper as a system        (`serving.transcriber`)
Whisper's tasks    a clip and what is asked of it in, words out         (`serving.task_whisper`)
Whisper's reader   what both share                                      (`serving.whisper_reader`)
Speech-aware LM    speech and words in, words out               (`serving.speech_aware`)
Cascade            clips written down first, words to another   (`serving.cascade`)
Codec              sound to codes and back, push by push                (`serving.codec`)
                   a clip in, the same from its codes out: a system     (`serving.codec_system`)
Session            token streams step by step: rows start, rest, stop   (`serving.session`)
                   codes frame by frame under any scheme                (`serving.code_session`)
Hearing            what a system asks of conversations and waveforms    (`serving.hearing`)
"""
