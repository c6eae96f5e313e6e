"""The named systems of the survey, each a short composition of parts.

Pure speech     GSLM     (`systems.speech`)
"""
