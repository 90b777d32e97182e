#!/usr/bin/env bash
# From nothing to a trained model, scores and a report, on a Debian or Ubuntu machine with
# a Rust toolchain:
#
#   bash jobs/quickstart.sh [FOLDER]         FOLDER: where to work, ./quickstart if not given
#
# The events are toy Monte Carlo, for trying the program out and not for physics. To run it
# again is fine: it begins anew and replaces its own outputs in FOLDER (train, test,
# archive, run, scores), nothing else. CARGO_TARGET_DIR is honoured.
set -euo pipefail

readonly TRAINING_EVENTS=150000 TEST_EVENTS=50000 ARCHIVE_EVENTS=40000 RANKS=2

say() { printf '\n== %s\n' "$*"; }
fail() { printf 'quickstart: %s\n' "$*" >&2; exit 5; }

# Prints the packages that are missing. An MPI or a compiler of your own is taken as it is.
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
        say "no apt here: MPI, libclang and HDF5 with their headers must be there already"
        return
    fi
    local packages as_root=()
    mapfile -t packages < <(missing_packages)
    if [ ${#packages[@]} -eq 0 ]; then
        say "system packages: all there"
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

# Open MPI refuses root, more ranks than cores, and to leave a rank's threads free to move,
# unless told; as variables, because mpirun of version 4, version 5 and MPICH then all start.
prepare_mpi() {
    if [ "$(id -u)" -eq 0 ]; then
        export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
    fi
    export OMPI_MCA_rmaps_base_oversubscribe=1 OMPI_MCA_hwloc_base_binding_policy=none
    export PRTE_MCA_rmaps_default_mapping_policy=:oversubscribe
    export PRTE_MCA_hwloc_default_binding_policy=none
    # Ranks that share a core and wait without yielding hold each other up.
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
