"""Kinds of training example, one file each: a config makes `example_fn(item, rng) -> dict of arrays`.

Masked speech      crops with frame labels and mask spans, for SSL        (`data.examples.masked_speech`)
Transcribed speech utterances with their text spelled out, for CTC        (`data.examples.transcribed_speech`)
Unit text          unit sequences for a language model                    (`data.examples.unit_text`)
Span corruption    texts with hidden spans, for an encoder-decoder        (`data.examples.span_corruption`)
Unit durations     runs of units with their lengths in frames             (`data.examples.unit_durations`)
Speech tasks       items of a corpus as conversations with an answer     (`data.examples.speech_tasks`)
Tagged tasks       such items asked by the tags of a task                (`data.examples.tagged_tasks`)
Written tasks      the same with the words of the speech in its place    (`data.examples.written_tasks`)
Spoken tasks       instructions spoken by the voice of the world         (`data.examples.spoken_tasks`)
Wordings           many ways to ask for one thing                        (`data.examples.wordings`)
Open book          spoken questions beside written notes                 (`data.examples.open_book`)
Speech prompts     such conversations as rows of words and clips         (`data.examples.speech_prompts`)
World labels       what the world knows of a sentence, as tasks          (`data.examples.world_labels`)
Whisper targets    such conversations as rows of Whisper's decoder       (`data.examples.whisper_targets`)
Vocoder segments   frames of units and F0 with their samples              (`data.examples.vocoder_segments`)
Waveform segments  waveforms, as they are or through another channel      (`data.examples.waveform_segments`)
"""
