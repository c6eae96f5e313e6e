"""Devices: the one place that builds a mesh, and what lies on which device.

Mesh       MeshConfig                                                      (`parallel.mesh`)
Rules      RULES, spec_for: logical axis -> mesh axis                      (`parallel.rules`)
Shardings  shardings_for, batch_sharding, row_parts, put_batch             (`parallel.sharding`)
Placement  where the step that is traced will run                          (`parallel.placement`)
Hosts      start_hosts, find_hosts, on_first_host, any_host, merged_state  (`parallel.hosts`)
Together   together: a host that fails ends all                            (`parallel.watch`)
Elsewhere  slices that are not here, and their chips                       (`parallel.topologies`, `parallel.chips`)
"""
