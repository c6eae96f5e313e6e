"""How a whole system is judged; each judge gives one section of the report (`evaluation.section`).

Units            phone purity and PNMI of units beside MFCC's            (`judges.units`)
Language model   nats per unit beside smoothed n-grams                   (`judges.language_model`)
Resynthesis      speech rebuilt from units beside Griffin-Lim            (`judges.resynthesis`)
Continuations    openings that are spoken on, beside real and shuffled   (`judges.continuations`)
Phones           a phone classifier trained for the run's corpus         (`judges.phones`)
Transcription    word and character errors of what is written down       (`judges.transcription`)
Answers          replies to questions beside those to other speech       (`judges.answers`)
Tasks            held-out items of what was trained for, beside others    (`judges.tasks`)
Pairs            a right clip likelier than a wrong one: sWUGGY and its kin   (`judges.pairs`)
Text             likelihood of held-out texts, openings that go on       (`judges.text_continuation`)
Codec            recordings beside what their codes say          (`judges.codec`)
Latency          how long one waits for a reply, and for a push          (`judges.latency`)
Asking           held-out items as conversations, and what was replied   (`judges.asking`)
Losses           curves of training and of the dev split                 (`judges.losses`)
"""
