"""Types, configs, contracts and trees: what every other package stands on.

Types      Waveform, Frames, Codes, Streams                    (`core.types`)
           Message, Speech, Text, Turn: what is said           (`core.messages`)
           TokenSpec, Codebook: what a tokenizer makes         (`core.token_spec`)
Configs    Config, load_config_file, diff, content_hash        (`core.config`)
           PartSource: where weights of a part come from       (`core.part_source`)
Contracts  Steppable, Scheme, Layout, Adapter, Objective, ...  (`core.contracts`)
Trees      path-named trees, counts, partition and merge       (`core.trees`)
Paths      as_path, local_copy: folders here and in stores     (`core.paths`)
           Mirror: logs beside a store                         (`core.mirror`)
FLOPs      count_flops: of a traced program, loops counted     (`core.flops`)
Errors     require, UserError                                  (`core.errors`)
"""
