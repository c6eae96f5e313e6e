#!/usr/bin/env bash
# TWIST-350M and 1.3B shaped training steps (bfloat16, four full rows of 2,048 tokens) and 256-token decoding on one GPU,
# beside transformers with SDPA and torch.compile. Leaves gpu.json here: times, ratios, MFU of both sides, versions.
#
#     pip install -e '.[cuda,bench]'
#     bash experiments/benchmarks/gpu.sh [CASE ...]
set -euo pipefail
cd "$(dirname "$0")/../.."

# Both sides live in one process: JAX takes memory as it needs it instead of three quarters of the card at once.
export XLA_PYTHON_CLIENT_PREALLOCATE=false
cases=("$@")
if [ ${#cases[@]} -eq 0 ]; then
    cases=(twist_350m_train twist_350m_generate twist_1_3b_train twist_1_3b_generate)
fi
python -m slm_jax bench "${cases[@]}" --dtype bfloat16 --compile --json > experiments/benchmarks/gpu.json.new
mv experiments/benchmarks/gpu.json.new experiments/benchmarks/gpu.json
