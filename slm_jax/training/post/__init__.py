"""Post-training: stages that make a system do what it is asked.

Answers    a speech-aware text LM learns to answer         (`training.post.speech_aware`)
Features   what frozen encoders make of clips, kept         (`training.post.clip_features`)
"""
