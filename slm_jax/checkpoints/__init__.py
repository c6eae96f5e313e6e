"""Checkpoints: plain trees and JSON on disk, sealed with a hash of every file.

Checkpoints   save (asynchronous), restore_latest, restore_params         (`checkpoints.manager`)
Integrity     seal, find_damage, file_hashes, write_json                  (`checkpoints.integrity`)
Layout        nested, rebuilt, describe: trees as nested dicts by path    (`checkpoints.layout`)
"""
