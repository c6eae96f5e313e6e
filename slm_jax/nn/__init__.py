"""Layers: what every module with weights is built of, and the only place that lifts over Flax scopes.

Dense        Linear, Embed, MLP                               (`nn.linear`, `nn.mlp`)
Adapters     LoRA from outside, merged                        (`nn.lora`, `nn.linear_sites`)
             bases kept in int8                               (`nn.int8`, `nn.int8_base`)
Norms        LayerNorm, RMSNorm, GroupNorm                    (`nn.norm`)
Convolution  Conv1d, transposed, weight norm, step forms      (`nn.conv`, `nn.streaming_conv`)
             forms of one convolution for XLA                 (`nn.conv_forms`)
Positions    sinusoids, rotations, positions from masks       (`nn.positions`)
             biases of attention by distance in buckets       (`nn.relative_bias`)
Attention    Attention, over itself or over a context         (`nn.attention`)
             attend_self: the fused kernel of a platform      (`nn.self_attention`, `nn.splash_masks`)
             attend: the equation; Visibility: who sees whom  (`nn.attend`, `nn.visibility`)
Caches       KVCache, RingCache, ContextCache                 (`nn.caches`)
Stack        Stack, unstack: scan or unroll, remat            (`nn.stack`)
             Group: a pattern of blocks as one layer          (`nn.pattern`)
Recompute    recomputed: made again for the gradient          (`nn.recompute`)
Dtypes       compute_dtype                                    (`nn.dtypes`)
"""
