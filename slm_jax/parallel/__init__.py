"""Devices: the one place that builds a mesh, and what lies on which device.

Mesh       MeshConfig                                              (`parallel.mesh`)
Rules      RULES, spec_for: logical axis -> mesh axis              (`parallel.rules`)
Shardings  shardings_for, batch_sharding, put_batch                (`parallel.sharding`)
Hosts      start_hosts, machine_shape, any_host, merged_state  (`parallel.hosts`)
"""
