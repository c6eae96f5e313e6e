"""Vocabulary and text tokens. Plain Python and NumPy, no Flax.

Vocabulary  one id space: specials first, then named ranges                     (`text.vocabulary`)
            a text table with units, specials and tags after it         (`text.expanded_vocabulary`)
            the tokens of both in that one id space                     (`text.joint_tokens`)
Tokenizers  bytes, characters, a `tokenizers` JSON file                         (`text.tokenizers`)
            specials and plain text in the ids of one model             (`text.marked_tokens`)
            some ids left out, which mean something else                (`text.left_out`)
            byte pairs learnt from texts                                (`text.learnt_tokens`)
Templates   how a conversation is put to a text model                       (`text.templates`)
            tasks as rows of tags                                       (`text.task_tags`)
Whisper     what its decoder is told before the words                           (`text.whisper_tokens`)
            specifiers of tasks, or instructions, before its answers    (`text.task_prompts`)
"""
