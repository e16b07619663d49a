#!/bin/bash
# dptrain on PBS Professional or OpenPBS.
# Untested: written from the scheduler's documentation.
#
#     qsub launch/pbs.sh
#     qsub -v DATA=data.npz,ARGS="--shards 8 --epochs 5" launch/pbs.sh
#
# qsub hands no arguments to a script, so those of `dptrain train` come in ARGS (split at
# blanks; a value with commas needs quotes inside: "ARGS='--hidden 64,32'"). All output is in
# one directory, dptrain-<job number>, where qsub was called: log.txt and run/. PBS's own file,
# dptrain.o<job number>, has only what comes before.

# ---- change these ----
# nodes (select), ranks a node (ncpus and mpiprocs, both: a core each), time (hh:mm:ss)
#PBS -l select=2:ncpus=4:mpiprocs=4:ompthreads=1
#PBS -l place=scatter
#PBS -l walltime=01:00:00
##PBS -q ...
##PBS -A ...
#PBS -N dptrain
#PBS -S /bin/bash
#PBS -j oe
# started over, the job would find its run directory full
#PBS -r n

set -eo pipefail
cd "$PBS_O_WORKDIR"  # a job starts in the home directory

# The MPI that mpi4py uses, and dptrain itself (a job does not inherit your PATH). mpirun has
# to be of that same MPI: with another's, every process thinks it is alone.
#module load mpich
#source venv/bin/activate

# MPICH reaches the other nodes with ssh. Where that is closed, try PBS's own way:
#export HYDRA_LAUNCHER=rsh HYDRA_LAUNCHER_EXEC=pbs_tmrsh

# Each rank stays on a core of its own. Use `none` on nodes shared with other jobs where PBS
# does not keep jobs to their own cores: two jobs would take the same ones.
BIND=core
# ---- end of what to change ----

set -u  # only here: module and activate may use unset variables

# A rank has one core. More threads also change the last bits of the result.
export OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 MKL_NUM_THREADS=1

dir=dptrain-${PBS_JOBID%%.*}
mkdir "$dir"
exec >"$dir/log.txt" 2>&1

read -ra options <<<"--out $dir/run ${ARGS:-}"
ranks=$(wc -l <"$PBS_NODEFILE")  # a line for each rank
mpirun -n "$ranks" --bind-to "$BIND" \
    dptrain train ${DATA:+"$DATA"} "${options[@]}"
