"""The command line: one verb, one file.

Begin    the tiny GSLM from nothing; every system by name               (`cli.demo`, `cli.systems`)
Data     a corpus made ready, with an account of what was left out      (`cli.prepare`)
         its tokens, and texts spoken, in shards by any workers         (`cli.tokenize`, `cli.speak`, `cli.sharding`)
Train    the stages of a recipe; their steps compiled for a TPU slice   (`cli.train`, `cli.plan`)
Use      replies to recordings and words; a run judged                  (`cli.generate`, `cli.evaluate`)
         items of published benchmarks answered                         (`cli.benchmark`)
         a page to talk to a run, and a socket                          (`cli.serve`)
         recordings written down                                        (`cli.transcribe`)
         recordings to codes, codes to sound                            (`cli.codec`)
         when the words of a corpus are said                            (`cli.align`)
Weights  in and out; layer by layer against PyTorch; speed beside it    (`cli.convert`, `cli.parity`, `cli.bench`)
Machine  what is installed here                                         (`cli.doctor`)
Frame    main: finds verbs, names the nearest one for a typing mistake
Options  typed options of a verb, overrides of any field of a config    (`cli.options`, `cli.overrides`)
Console  tables, the result as JSON, errors as one line                 (`cli.console`)
Hosts    options of several hosts                                       (`cli.hosts`)
Speed    programs compiled quickly; memory kept between calls           (`cli.compiling`, `cli.memory`)
"""
