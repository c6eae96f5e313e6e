"""How a whole system is judged; each judge gives one section of the report (`evaluation.section`).

Units            phone purity and PNMI of units beside MFCC's            (`judges.units`)
Language model   nats per unit beside smoothed n-grams                   (`judges.language_model`)
Resynthesis      speech rebuilt from units beside Griffin-Lim            (`judges.resynthesis`)
Continuations    openings that are spoken on, beside real and shuffled   (`judges.continuations`)
Phones           a phone classifier trained for the run's corpus         (`judges.phones`)
Losses           curves of training and of the dev split                 (`judges.losses`)
"""
