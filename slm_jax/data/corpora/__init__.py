"""Corpora: where speech comes from, and how it becomes ArrayRecord through TFDS.

Settings    one config per kind, and their short written form    (`data.corpora.settings`)
World       facts and grammar: what is said                      (`data.corpora.world_facts`,
                                                                  `data.corpora.world_grammar`)
            a voice, its phones                                  (`data.corpora.world_voice`,
                                                                  `data.corpora.world_phones`)
            plans and manner: who says it how                    (`data.corpora.world_plans`,
                                                                  `data.corpora.world_manner`)
            channels, overlaps; records                          (`data.corpora.world_mix`,
                                                                  `data.corpora.world_records`)
            turns as messages; instructions with known answers   (`data.corpora.world_turns`,
                                                                  `data.corpora.world_instructions`)
Recordings  manifests, folders and TFDS sets                     (`data.corpora.manifest`, `data.corpora.folder`,
                                                                  `data.corpora.tfds_set`)
            checked item by item; turns and conversations        (`data.corpora.recordings`,
                                                                  `data.corpora.conversations`)
            a conversation as an item; what became of all        (`data.corpora.conversation_rows`,
                                                                  `data.corpora.report`)
Tasks       shards of examples as a corpus                       (`data.corpora.task_folder`)
Splits      what decides, and splits that would be empty         (`data.corpora.splits`, `data.corpora.filled_splits`)
Builders    the TFDS builders and the parts they are made of     (`data.corpora.builders`, `data.corpora.parts`)
            records on their way, whatever their number          (`data.corpora.spool`)
"""
