"""What looks at whole systems.

Judging           the judges of a run in turn                 (`workbench.judging`)
Report            sounds, pictures and tables as one page     (`workbench.report`)
Parity            ours against PyTorch, place by place        (`workbench.parity`)
                  what passes through our models              (`workbench.activations`)
"""
