"""Checkpoints: plain trees and JSON on disk, sealed with a hash of every file.

Checkpoints   save (asynchronous), restore_latest, restore_params        (`checkpoints.manager`)
Models        save_model, load_model: config and parameters in a folder  (`checkpoints.model_folder`)
Large arrays  StreamedArray, StoredArray: written and read in parts      (`checkpoints.streamed`)
Parts         LazyArray, load_part, part_hash: each device its share     (`checkpoints.lazy`)
Adapters      LoRA alone, beside the hash of its base                    (`checkpoints.adapter_folder`)
Folders       whole_folder: appears whole or not at all                  (`checkpoints.whole_folder`)
Integrity     seal, find_damage, file_hashes, write_json                 (`checkpoints.integrity`)
Layout        nested, rebuilt, describe: trees as nested dicts by path   (`checkpoints.layout`)
"""
