"""Post-training: stages that make a system do what it is asked.

Answers    a speech-aware text LM learns to answer           (`training.post.speech_aware`)
           what that is put together of, and its batches     (`training.post.speech_aware_form`)
           which items it can use, and how they are rows     (`training.post.speech_rows`)
Targets    what a text LM answers about descriptions         (`training.post.lm_targets`)
Alignment  near the words that are said, or alike in effect  (`training.post.alignment`)
Whisper    learns tasks, or to transcribe from nothing       (`training.post.whisper_tuning`)
           its rows, and how likely held-out answers are     (`training.post.whisper_rows`,
                                                              `training.post.held_out_answers`)
Going on   what an earlier stage of the kind trained stays   (`training.post.going_on`)
Dev        nats per word, and after other speech             (`training.post.dev_answers`)
Units      what is read of clips where that is units         (`training.post.clip_units`)
Words      what a recogniser writes down of clips            (`training.post.clip_words`)
Features   what frozen encoders make of clips, kept          (`training.post.clip_features`)
           whether that is cheaper                           (`training.post.kept_features`)
"""
