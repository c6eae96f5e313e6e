"""Vocabulary and text tokens. Plain Python and NumPy, no Flax.

Vocabulary  one id space: specials first, then named ranges                     (`text.vocabulary`)
            a text table with units, specials and tags after it         (`text.expanded_vocabulary`)
Tokenizers  bytes, characters, a `tokenizers` JSON file                         (`text.tokenizers`)
"""
