"""Corpora: where speech comes from, and how it becomes ArrayRecord through TFDS.

Settings   one config per kind, and their short written form            (`corpora.settings`)
World      facts, sentences, voice, speakers, records                   (`corpora.world_*`)
Recordings manifests, folders and TFDS sets, checked item by item       (`corpora.manifest`, `.folder`, `.tfds_set`)
Builders   the TFDS builders, and the parts they are made of            (`corpora.builders`, `.parts`)
"""
