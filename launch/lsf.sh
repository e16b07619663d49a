#!/bin/bash
# dptrain on LSF.
# Untested: written from the scheduler's documentation.
#
#     bsub < launch/lsf.sh
#     DATA=data.npz ARGS="--shards 8 --epochs 5" bsub < launch/lsf.sh
#
# bsub reads the #BSUB lines from its standard input, and hands no arguments to a script that
# comes from there: those of `dptrain train` come in ARGS (split at blanks). All output is in
# one directory, dptrain-<job id>, where bsub was called: log.txt and run/. LSF's own report,
# dptrain-<job id>.out, has only what comes before and how the job ended.

# ---- change these ----
# ranks in all, ranks a node (so 2 nodes here), time (hh:mm)
#BSUB -n 8
#BSUB -R "span[ptile=4]"
#BSUB -W 01:00
##BSUB -q ...
##BSUB -P ...
#BSUB -J dptrain
#BSUB -o dptrain-%J.out
# started over, the job would find its run directory full
#BSUB -rn

set -eo pipefail

# The MPI that mpi4py uses, and dptrain itself. mpirun has to be of that same MPI:
# with another's, every process thinks it is alone.
#module load mpich
#source venv/bin/activate

# Each rank stays on a core of its own. Use `none` on nodes shared with other jobs where LSF
# does not keep jobs to their own cores: two jobs would take the same ones.
BIND=core
# ---- end of what to change ----

set -u  # only here: module and activate may use unset variables

# A rank has one core. More threads also change the last bits of the result.
export OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 MKL_NUM_THREADS=1

dir=dptrain-$LSB_JOBID
mkdir "$dir"
exec >"$dir/log.txt" 2>&1

read -ra options <<<"--out $dir/run ${ARGS:-}"
mpirun -n "$LSB_DJOB_NUMPROC" --bind-to "$BIND" \
    dptrain train ${DATA:+"$DATA"} "${options[@]}"
