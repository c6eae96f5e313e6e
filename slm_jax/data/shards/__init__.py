"""Work over a whole corpus shard by shard: what one shard needs is one function, whoever calls it and however often.

Work      ShardWork: what is to be done, as a config that travels      (`data.shards.work`)
Shard     one shard: written whole or not at all, with its account     (`data.shards.shard`)
Make      all shards that are not there, and the tables they form      (`data.shards.make`)
Workers   shared out to processes of this machine                      (`data.shards.workers`)
Tasks     a transcribed corpus as examples of tasks                    (`data.shards.tasks`)
Report    what became of every item                                    (`data.shards.report`)
"""
