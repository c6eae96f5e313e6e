"""Modality adapters: from the frames of an encoder to what a language model reads. One contract for lengths and masks.

Linear     frame by frame, or over small stacks of frames     (`adapters.linear`)
"""
