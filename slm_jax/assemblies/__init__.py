"""Assemblies: parts that several systems share, composed of encoders, quantizers, models and decoders.

Tokenizers   PhoneticTokenizerConfig, PhoneticTokenizer, fit_phonetic_tokenizer   (`assemblies.phonetic_tokenizer`)
"""
