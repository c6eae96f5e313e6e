"""How results are judged.

Units             phone purity, cluster purity, PNMI, frame labels from spans   (`evaluation.units`)
Language model    n-gram baselines, unit statistics of continuations            (`evaluation.language_model`)
Resynthesis       STOI, log-mel distance, voiced share, F0 error                (`evaluation.resynthesis`)
Codec             SI-SDR, PESQ, use of codebooks                           (`evaluation.codec`)
Comparison        features clustered after equal treatments                     (`evaluation.unit_comparison`)
Transcription     word and character errors after the normaliser of Whisper   (`evaluation.transcription`)
CTC               greedy texts, character errors, word times             (`evaluation.ctc`)
Translation       BLEU and chrF with sacrebleu's signatures                 (`evaluation.translation`)
Answers           exact match, token F1, how many could not be parsed      (`evaluation.answers`)
Latency           percentiles of times, real-time factors                 (`evaluation.latency`)
Intervals         how sure a mean over few items is                       (`evaluation.intervals`)
Scoring           how likely a language model finds given sequences             (`evaluation.scoring`)
Pairs             a right clip above a wrong one, scores that are kept          (`evaluation.pairs`)
Codes             the same of codes, by book                                    (`evaluation.codes`)
Sections          Section, JudgeConfig: what a judge gives a report             (`evaluation.section`)
Phone classifier  softmax classifier from log-mel to phones, its posterior      (`evaluation.phone_classifier`)
"""
