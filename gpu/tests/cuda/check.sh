#!/usr/bin/env bash
# Compiles every kernel for CUDA where there is no GPU: NVRTC and ptxas from PyPI, and a
# driver that computes nothing. Prints registers, spills and shared memory of each kernel
# and fails if one spills.
#
#   bash gpu/tests/cuda/check.sh [80 90 …]      compute capabilities
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../../.."
target=$(realpath -m "${CARGO_TARGET_DIR:-target}")
tools="$target/cuda-tools"

if [ ! -e "$tools/ready" ]; then
    rm -rf "$tools"
    python3 -m venv "$tools/python"
    timeout 600 "$tools/python/bin/pip" install --quiet --disable-pip-version-check \
        nvidia-cuda-nvrtc-cu12==12.8.93 nvidia-cuda-runtime-cu12==12.8.90 nvidia-cuda-nvcc-cu12==12.8.93
    packages=$(echo "$tools"/python/lib/python3*/site-packages/nvidia)
    mkdir -p "$tools/cuda"
    cp -r "$packages/cuda_runtime/include" "$tools/cuda/include"
    cp "$packages"/cuda_nvrtc/lib/*.so* "$tools/cuda/"
    cp "$packages/cuda_nvcc/bin/ptxas" "$tools/cuda/"
    touch "$tools/ready"
fi
[ -e "$tools/cuda/libnvrtc.so" ] || ln -s libnvrtc.so.12 "$tools/cuda/libnvrtc.so"
gcc -shared -fPIC -w -o "$tools/cuda/libcuda.so.1" gpu/tests/cuda/stub.c
ln -sf libcuda.so.1 "$tools/cuda/libcuda.so"

cargo build -q -p taiga-flow-gpu --features device --example kernels
spills=0
for compute in "${@:-90}"; do
    ptx=$(mktemp -d)
    CUDA_PATH="$tools/cuda" LD_LIBRARY_PATH="$tools/cuda${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}" \
        STUB_PTX="$ptx" STUB_COMPUTE="$compute" timeout 600 "$target/debug/examples/kernels" cuda
    for file in "$ptx"/*.ptx; do
        name=$(grep -m1 -oE '\.entry [A-Za-z0-9_]+' "$file" | cut -d' ' -f2)
        arch=$(grep -m1 -oE '^\.target sm_[0-9a-z]+' "$file" | cut -d' ' -f2)
        report=$("$tools/cuda/ptxas" -arch="$arch" -v -o /dev/null "$file" 2>&1) || {
            echo "$report" >&2
            exit 1
        }
        registers=$(grep -oE 'Used [0-9]+ registers' <<<"$report" | grep -oE '[0-9]+' | head -1)
        spilled=$(grep -oE '[0-9]+ bytes spill stores' <<<"$report" | grep -oE '[0-9]+' | head -1)
        stack=$(grep -oE '[0-9]+ bytes stack frame' <<<"$report" | grep -oE '[0-9]+' | head -1)
        shared=$(grep -oE '[0-9]+ bytes smem' <<<"$report" | grep -oE '[0-9]+' | head -1) || true
        printf '%-7s  %-18s registers %4s  spills %5s  stack %5s  shared %6s\n' \
            "$arch" "${name%%_[fu]32*}" "$registers" "${spilled:-0}" "${stack:-0}" "${shared:-0}"
        spills=$((spills + ${spilled:-0}))
    done
    rm -rf "$ptx"
done
if [ "$spills" -gt 0 ]; then
    echo "check.sh: kernels spill registers" >&2
    exit 1
fi
