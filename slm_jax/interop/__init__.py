"""PyTorch weights in and out.

Folders     `load` and `export` of a folder as the hub lays it out      (`interop.model`)
Larger ones from a hub folder to a model folder, layer by layer         (`interop.streaming`, `interop.hub`)
Families    what a config.json means and which table belongs to it      (`interop.family`, `interop.families`)
Fields      a config.json of which nothing is silently dropped          (`interop.hub_config`)
Tables      names of a checkpoint <-> paths of our tree                 (`interop.table`, `interop.transforms`)
Engine      a table against abstract shapes: checked, then carried out  (`interop.engine`)
Files       safetensors, npz and PyTorch files                          (`interop.readers`, `interop.safetensors`)
References  the PyTorch models that ours are compared with              (`interop.references`, `interop.reference`)
"""
