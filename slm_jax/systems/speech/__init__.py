"""Pure speech language models, p(speech).

GSLM       HuBERT units, a unit language model, a unit vocoder           (`systems.speech.gslm`)
TWIST      the same, its language model begun from a text model          (`systems.speech.twist`)
pGSLM      units with durations and pitch, in one step                   (`systems.speech.pgslm`)
AudioLM    units, coarse codes and fine ones, a model for each      (`systems.speech.audiolm`)
Shared     how their runs are loaded and judged                          (`systems.speech.unit_speech`)
"""
