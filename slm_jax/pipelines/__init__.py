"""Work over whole corpora in shards (`data.shards`) that takes whole systems, and who carries it out.

Tokens  units or codes of a corpus by a run's tokenizer or a codec     (`pipelines.tokens`)
Speech  texts spoken by the world's voice, or by a system of a run     (`pipelines.speech`)
        voices                                                         (`pipelines.voices`)
Runner  processes of this machine, or Apache Beam, by one word         (`pipelines.runner`)
Beam    the same shards as a Beam pipeline, wherever that runs         (`pipelines.beam`)
"""
