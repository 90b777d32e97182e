#!/usr/bin/env bash
# Runs all tests on a Debian or Ubuntu machine with a Rust toolchain. Installs missing system
# packages (and lists them), creates a Python environment that reads a model independently, and
# tests the workspace. Works from any folder.
#
#   bash tests/run.sh [arguments of `cargo test`]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# Time limit of the tests.
limit_s=3600

as_root() {
    if [ "$(id -u)" -eq 0 ]; then
        "$@"
    elif command -v sudo >/dev/null; then
        sudo "$@"
    else
        echo "tests/run.sh: these packages need root: run '$*' and try again" >&2
        exit 1
    fi
}

install_packages() {
    if ! command -v dpkg-query >/dev/null; then
        echo "tests/run.sh: not a Debian or Ubuntu system; install the equivalents of: $*" >&2
        return
    fi
    local missing=()
    for package in "$@"; do
        dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing+=("$package")
    done
    [ ${#missing[@]} -gt 0 ] || return 0
    echo "tests/run.sh: installing ${missing[*]}"
    as_root apt-get update -qq
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}"
}

make_python() {
    local folder=$1
    [ -e "$folder/ready" ] && return
    echo "tests/run.sh: creating the Python environment $folder"
    rm -rf "$folder"
    python3 -m venv "$folder"
    timeout 600 "$folder/bin/pip" install --quiet --disable-pip-version-check numpy safetensors h5py
    touch "$folder/ready"
}

command -v cargo >/dev/null || { echo "tests/run.sh: needs a Rust toolchain, see https://rustup.rs" >&2; exit 1; }
install_packages gcc libc6-dev pkg-config libopenmpi-dev openmpi-bin libclang-dev libhdf5-dev python3-venv valgrind mesa-vulkan-drivers
# Job scripts are tested under a real Slurm if it can be installed and started (root).
if [ "$(id -u)" -eq 0 ] && ! { install_packages slurm-wlm munge iproute2; }; then
    echo "tests/run.sh: SKIPPED: no Slurm, job scripts are not tested" >&2
fi
target=$(realpath -m "${CARGO_TARGET_DIR:-target}")
make_python "$target/test-python"
export TAIGA_FLOW_PYTHON="$target/test-python/bin/python3"

# Checks licences and sources of dependencies; advisories would need a network.
if cargo deny --version >/dev/null 2>&1; then
    cargo deny check licenses bans sources
else
    echo "tests/run.sh: SKIPPED: no cargo-deny, licences and sources are not checked" >&2
fi

started=$SECONDS
timeout --foreground "$limit_s" cargo test --workspace "$@"
echo "tests/run.sh: all tests passed in $((SECONDS - started)) s, compilation included"
