"""Items of published benchmarks as they lie in files, and predictions in the form that their scripts read.

Items          clips, words and fields of one question                 (`data.benchmarks.items`)
Parquet        rows of the hub's tables, their audio as samples        (`data.benchmarks.parquet`)
VoiceBench     questions to voice assistants, JSON lines of replies    (`data.benchmarks.voicebench`)
Dynamic-SUPERB instructions about recordings, a JSON file per task     (`data.benchmarks.dynamic_superb`)
Full duplex    folders of what was heard and said meanwhile            (`data.benchmarks.full_duplex`)
"""
