"""Parts that several systems share.

Phonetic tokenizer   features of a layer (or MFCC), treated, clustered: speech to units
                     (`assemblies.phonetic_tokenizer`)
"""
