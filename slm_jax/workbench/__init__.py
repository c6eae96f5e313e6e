"""What looks at whole systems.

Report            sounds, pictures and tables as one page     (`workbench.report`)
Unit speech LM    judged from end to end                      (`workbench.speech_lm`)
                  the report of that                          (`workbench.speech_lm_report`)
Parity            ours against PyTorch, place by place        (`workbench.parity`)
                  what passes through our models              (`workbench.activations`)
"""
