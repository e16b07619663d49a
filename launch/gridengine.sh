#!/bin/bash
# dptrain on Grid Engine (Sun, Son of, Univa, Altair, Open Cluster Scheduler).
# Untested: written from the scheduler's documentation.
#
#     qsub launch/gridengine.sh
#     qsub -v DATA=data.npz launch/gridengine.sh --shards 8 --epochs 5
#
# What stands after the script's name is handed to `dptrain train`. All output is in one
# directory, dptrain-<job id>, where qsub was called: log.txt and run/. Grid Engine's own file,
# dptrain.o<job id>, has only what comes before.

# ---- change these ----
# the parallel environment and the ranks in all. `qconf -spl` lists the environments;
# `qconf -sp mpi` shows one: its allocation_rule is the ranks a node, and control_slaves has to
# be TRUE, so that mpirun can start ranks on the other nodes
#$ -pe mpi 8
# time (hh:mm:ss)
#$ -l h_rt=01:00:00
#$ -N dptrain
#$ -S /bin/bash
#$ -cwd
#$ -j y
# started over, the job would find its run directory full
#$ -r n

set -eo pipefail

# The MPI that mpi4py uses, and dptrain itself (a job does not inherit your PATH). mpirun has
# to be of that same MPI: with another's, every process thinks it is alone.
#module load mpich
#source venv/bin/activate

# Each rank stays on a core of its own. Use `none` on nodes shared with other jobs where Grid
# Engine does not keep jobs to their own cores: two jobs would take the same ones.
BIND=core
# ---- end of what to change ----

set -u  # only here: module and activate may use unset variables

# A rank has one core. More threads also change the last bits of the result.
export OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 MKL_NUM_THREADS=1

dir=dptrain-$JOB_ID
mkdir "$dir"
exec >"$dir/log.txt" 2>&1

mpirun -n "$NSLOTS" --bind-to "$BIND" \
    dptrain train ${DATA:+"$DATA"} --out "$dir/run" "$@"
