"""Vocabulary and text tokens. Plain Python and NumPy, no Flax.

Vocabulary  one id space: specials first, then named ranges                     (`text.vocabulary`)
Tokenizers  bytes, characters, a `tokenizers` JSON file                         (`text.tokenizers`)
Whisper     what its decoder is told before the words                           (`text.whisper_tokens`)
"""
