#!/usr/bin/env bash
# Builds a tarball for machines of one kind: the program, linked with the MPI and HDF5 of this one,
# with completions, man pages, job scripts, configurations and documents.
#
#   bash jobs/release.sh [FOLDER]        writes FOLDER/taiga-flow-VERSION-ARCH-MPI.tar.gz and
#   .sha256
#
# Build it on the cluster itself, with the modules loaded that jobs/env.sh will load; MPICC selects
# a different MPI compiler. FEATURES='' excludes the GPU engines. The script respects
# CARGO_TARGET_DIR.
set -euo pipefail
repository=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
folder=$(realpath -m "${1:-.}")
cd "$repository"
target=${CARGO_TARGET_DIR:-$repository/target}
profile=${PROFILE:-release}
cargo build --profile "$profile" --locked --no-default-features --features "${FEATURES-gpu}" --target-dir "$target"
program=$target/${profile/#dev/debug}/taiga-flow
version=$("$program" --version | cut -d' ' -f2)
mpi=$("${MPICC:-mpicc}" --showme:version 2>/dev/null | sed -n 's/.*Open MPI \([0-9.]*\).*/openmpi\1/p')
[ -n "$mpi" ] || mpi=mpich
name=taiga-flow-$version-$(uname -m)-$mpi
staging=$(mktemp -d)
trap 'rm -rf "$staging"' EXIT
mkdir -p "$staging/$name/bin" "$folder"
cp "$program" "$staging/$name/bin/"
strip "$staging/$name/bin/taiga-flow"
"$program" -q completions "$staging/$name/completions" >/dev/null
cp -r README.md ARCHITECTURE.md CHANGELOG.md CONTRIBUTING.md CITATION.cff docs LICENSE-MIT LICENSE-APACHE configs "$staging/$name/"
mkdir "$staging/$name/jobs"
cp -r jobs/*.sbatch jobs/*.sh jobs/README.md jobs/apptainer.def jobs/condor "$staging/$name/jobs/"
{
    echo "taiga-flow $version, commit $(git rev-parse --short HEAD 2>/dev/null || echo unknown), features '${FEATURES-gpu}', $mpi"
    echo "needs these libraries, found here as:"
    ldd "$staging/$name/bin/taiga-flow" | sed 's/ (0x[0-9a-f]*)//'
} >"$staging/$name/BUILD"
# The same sources give the same tarball except for the bytes of the program.
tar --sort=name --mtime="@$(git log -1 --format=%ct 2>/dev/null || echo 0)" --owner=0 --group=0 --numeric-owner \
    -C "$staging" -czf "$folder/$name.tar.gz" "$name"
(cd "$folder" && sha256sum "$name.tar.gz" >"$name.tar.gz.sha256")
tar -xzOf "$folder/$name.tar.gz" "$name/BUILD" | head -1
echo "$folder/$name.tar.gz"
