"""From recordings to batches: corpora, derived tables and the Grain pipeline.

Corpora    which speech, its preparation and its random-access form     (`data.corpus`, `data.prepare`)
Builders   world, manifest, folder and tfds as TFDS builders            (`data.corpora`)
Records    tables derived from a corpus, such as units                  (`data.records`)
Examples   one file per kind of training example                        (`data.examples`)
Pipeline   seeded shuffle, virtual shards, packing, exact state         (`data.pipeline`)
Passes     finite passes over a source for encoding                     (`data.passes`)
"""
