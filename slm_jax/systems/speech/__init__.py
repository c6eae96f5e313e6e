"""Pure speech language models, p(speech).

GSLM     HuBERT units, a unit language model, a unit vocoder     (`systems.speech.gslm`)
"""
