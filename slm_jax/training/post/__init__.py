"""Post-training: stages that make a system do what it is asked.

Answers    a speech-aware text LM learns to answer         (`training.post.speech_aware`)
Whisper    learns tasks, or to transcribe from nothing      (`training.post.whisper_tuning`)
           its rows                                         (`training.post.whisper_rows`)
           how likely held-out answers are                  (`training.post.held_out_answers`)
Features   what frozen encoders make of clips, kept         (`training.post.clip_features`)
"""
