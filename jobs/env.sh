# Settings of this site, in one place: every job script reads this file, on the node where the job
# runs and, through submit.sh and pipeline.sh, where it is submitted.
#
# Variables that are already set (TAIGA_FLOW_PROGRAM=… sbatch …) take precedence; edit the defaults
# here.

# --- Modules, paths ------------------------------------------------------------------
# module purge
# module load openmpi/4.1 hdf5/1.10

# The program: a name on the PATH, or a full path that every node sees.
: "${TAIGA_FLOW_PROGRAM:=taiga-flow}"

# --- Launcher ------------------------------------------------------------------------
# Open MPI: srun --mpi=pmix. MPICH, Intel MPI: srun --mpi=pmi2. `srun --mpi=list` lists the
# available ones. If Slurm has neither: mpirun.
: "${TAIGA_FLOW_LAUNCH:=srun --mpi=pmix}"

# Open MPI over Ethernet: with one connection between two nodes acknowledgements wait behind data,
# and sums take half as long again (measured: bench/scaling). No other library reads this variable.
export OMPI_MCA_btl_tcp_links=${OMPI_MCA_btl_tcp_links:-2}

# --- Account and partition (read by submit.sh and pipeline.sh; `sbatch` alone takes them
# --- from its own options) -------------------------------------------------------------
# export SBATCH_ACCOUNT=taiga SBATCH_PARTITION=compute

# --- Largest number of automatic restarts of a job -----------------------------------
# Each restart requires progress: a checkpoint, or a finished output.
: "${TAIGA_FLOW_RESTARTS:=50}"

export TAIGA_FLOW_PROGRAM TAIGA_FLOW_LAUNCH TAIGA_FLOW_RESTARTS
