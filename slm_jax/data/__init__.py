"""From recordings to batches: corpora, derived tables and the Grain pipeline.

Corpora   which speech, its preparation and its random-access form  (`data.corpus`, `data.prepare`)
Builders  world, manifest, folder and tfds as TFDS builders         (`data.corpora`)
Records   tables derived from a corpus, such as units               (`data.records`)
Examples  one file per kind of training example                     (`data.examples`)
Pairs     right and wrong clips: archives, the world's own          (`data.pairs`)
Pipeline  seeded order, host-independent batches, exact state       (`data.pipeline`)
Packing   several examples in a row, over fixed virtual shards      (`data.packing`)
Buckets   whole examples in few fixed shapes                        (`data.buckets`, `data.lengths`)
Order     who comes when, and the rng of each example               (`data.order`)
Channels  one channel of a corpus of several, and through a line    (`data.channels`, `data.lines`)
Joined    rows side by side, parts of a source, corpora end to end  (`data.joined`)
Mixture   shares of corpora and of kinds of example, in a config    (`data.mixture`)
Kinds     whole pipelines in turn, each with its own shapes         (`data.interleaved`)
Passes    finite passes over a source for encoding                  (`data.passes`, `data.progress`)
Shapes    shapes of batches that nobody has read                    (`data.shapes`)
Shares    a pass shared by several hosts, written as one table      (`data.shares`)
"""
