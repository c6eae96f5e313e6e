"""Corpora: where speech comes from, and how it becomes ArrayRecord through TFDS.

Settings   one config per kind, and their short written form            (`corpora.settings`)
World      facts, grammar, voice, plans, manner, mix, records, turns    (`corpora.world_*`)
Questions  instructions about what is heard, with known answers         (`corpora.world_instructions`)
Splits     what an item is split by, and into what                      (`corpora.splits`)
Small ones splits that would be empty get an item                  (`corpora.filled_splits`)
Recordings manifests, folders and TFDS sets, checked item by item       (`corpora.manifest`, `.folder`, `.tfds_set`)
Messages   turns and conversations of manifests                        (`corpora.conversations`)
Builders   the TFDS builders, and the parts they are made of            (`corpora.builders`, `.parts`)
"""
