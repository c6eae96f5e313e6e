"""Post-training: stages that make a system do what it is asked.

Answers    a speech-aware text LM learns to answer         (`training.post.speech_aware`)
Units      what is read of clips where that is units       (`training.post.clip_units`)
Features   what frozen encoders make of clips, kept         (`training.post.clip_features`)
"""
