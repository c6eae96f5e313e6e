"""The command line: one verb, one file.

Verbs    every module here with a `main(argv)`; its help line is the first line of its docstring
Frame    finds verbs, names the nearest one for a typing mistake           (`cli.main`)
Options  typed options of a verb, overrides of any field of a config       (`cli.options`, `cli.overrides`)
Console  tables, the result as JSON, errors as one line and an exit code   (`cli.console`)
"""
