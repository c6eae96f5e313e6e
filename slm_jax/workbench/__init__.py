"""What looks at whole systems.

Report    a folder of sounds, pictures and tables as one page     (`workbench.report`)
"""
