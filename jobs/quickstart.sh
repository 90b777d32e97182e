#!/usr/bin/env bash
# Builds the program, trains a model, and writes scores and a report, on a Debian or Ubuntu machine
# with a Rust toolchain:
#
#   bash jobs/quickstart.sh [FOLDER]         FOLDER: working folder, default ./quickstart
#
# The events are toy Monte Carlo, for trying the program and not for physics. Running the script
# again starts from scratch and replaces only its own outputs in FOLDER (train, test, archive, run,
# scores). It respects CARGO_TARGET_DIR.
set -euo pipefail

readonly TRAINING_EVENTS=150000 TEST_EVENTS=50000 ARCHIVE_EVENTS=40000 RANKS=2

say() { printf '\n== %s\n' "$*"; }
fail() { printf 'quickstart: %s\n' "$*" >&2; exit 5; }

# Prints the missing packages. An installed MPI or compiler is used unchanged.
missing_packages() {
    local wanted=(libclang-dev libhdf5-dev) package
    command -v mpicc >/dev/null && command -v mpirun >/dev/null ||
        wanted+=(libopenmpi-dev openmpi-bin)
    command -v cc >/dev/null || wanted+=(build-essential)
    command -v pkg-config >/dev/null || wanted+=(pkg-config)
    for package in "${wanted[@]}"; do
        dpkg-query -W -f='${Status}\n' "$package" 2>/dev/null | grep -q 'ok installed' ||
            echo "$package"
    done
}

install_packages() {
    if ! command -v apt-get >/dev/null || ! command -v dpkg-query >/dev/null; then
        say "no apt here: MPI, libclang and HDF5 must be installed with their headers"
        return
    fi
    local packages as_root=()
    mapfile -t packages < <(missing_packages)
    if [ ${#packages[@]} -eq 0 ]; then
        say "system packages: all installed"
        return
    fi
    say "system packages: installing ${packages[*]}"
    if [ "$(id -u)" -ne 0 ]; then
        command -v sudo >/dev/null ||
            fail "not root and no sudo; ask for: apt-get install ${packages[*]}"
        as_root=(sudo)
    fi
    "${as_root[@]}" apt-get update -qq
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive \
        apt-get install -y -qq --no-install-recommends "${packages[@]}"
}

# By default Open MPI refuses root and more ranks than cores, and binds the threads of a rank.
# Variables change this, because mpirun of versions 4 and 5 and of MPICH then all start.
prepare_mpi() {
    if [ "$(id -u)" -eq 0 ]; then
        export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
    fi
    export OMPI_MCA_rmaps_base_oversubscribe=1 OMPI_MCA_hwloc_base_binding_policy=none
    export PRTE_MCA_rmaps_default_mapping_policy=:oversubscribe
    export PRTE_MCA_hwloc_default_binding_policy=none
    # Ranks that share a core and wait without yielding delay each other.
    export OMPI_MCA_mpi_yield_when_idle=1
}

simulate() { # FILE CLASS EVENTS SEED
    "$program" simulate -o "$1" --class "$2" --events "$3" --seed "$4" --overwrite
}

on_ranks() { mpirun -n "$RANKS" "$program" "$@"; }

repository=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
folder=${1:-quickstart}

install_packages
command -v cargo >/dev/null || fail "no cargo: install Rust, see https://rustup.rs"
say "building taiga-flow (a few minutes the first time)"
target=${CARGO_TARGET_DIR:-$repository/target}
cargo build --release --locked --manifest-path "$repository/Cargo.toml" --target-dir "$target"
program=$(cd "$target" && pwd)/release/taiga-flow

prepare_mpi
mkdir -p "$folder"
cd "$folder"
SECONDS=0

say "simulating toy events"
simulate train/gamma.h5 gamma "$TRAINING_EVENTS" 1
simulate test/gamma.h5 gamma "$TEST_EVENTS" 2
simulate test/hadron.h5 hadron "$TEST_EVENTS" 2
simulate archive/night-1/run-1.h5 hadron "$ARCHIVE_EVENTS" 3
simulate archive/night-1/run-2.h5 hadron "$ARCHIVE_EVENTS" 4
simulate archive/night-2/run-1.h5 gamma "$ARCHIVE_EVENTS" 5

say "training on $RANKS ranks: one flow on gammas"
on_ranks train -c "$repository/configs/quickstart.toml" -o run --overwrite

say "evaluating on gammas and hadrons that the training has not seen"
summary=$(on_ranks evaluate -m run/model.safetensors --gamma test/gamma.h5 \
    --hadron test/hadron.h5 -o run/evaluation --overwrite)
echo "$summary"

say "scoring an archive"
on_ranks score -m run/model.safetensors -o scores archive --overwrite
find scores -name '*.h5' | sort

say "done in $SECONDS s after the build"
echo "AUC:    $(sed -n 's/^ *AUC *//p' <<<"$summary")"
echo "report: $PWD/run/evaluation/report.html"
echo "scores: $PWD/scores"
