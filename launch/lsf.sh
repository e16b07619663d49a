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
#
# Shortly before its time is up the run is saved and the job queued again, to go on from there,
# as often as it takes. So it does where a node fails. The bytes are those of a run that was never
# disturbed.

# ---- change these ----
# ranks in all, ranks a node (so 2 nodes here), time (hh:mm)
#BSUB -n 8
#BSUB -R "span[ptile=4]"
#BSUB -W 01:00
##BSUB -q ...
##BSUB -P ...
#BSUB -J dptrain
#BSUB -o dptrain-%J.out
# started over after a node has failed, it goes on; 75: the run is saved, queue the job again
#BSUB -r
#BSUB -Q 75

set -eo pipefail

# The MPI that mpi4py uses, and dptrain itself. mpirun has to be of that same MPI:
# with another's, every process thinks it is alone.
#module load mpich
#source venv/bin/activate

# Each rank stays on a core of its own. Use `none` on nodes shared with other jobs where LSF
# does not keep jobs to their own cores: two jobs would take the same ones.
BIND=core

# Seconds from the start after which the ranks save and the job is queued again: a little less
# than its time.
SAVE_AFTER=3480
# ---- end of what to change ----

set -u  # only here: module and activate may use unset variables

# A rank has one core. More threads also change the last bits of the result.
export OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 MKL_NUM_THREADS=1

dir=dptrain-$LSB_JOBID
mkdir -p "$dir"
exec >>"$dir/log.txt" 2>&1

# Each start notes which checkpoint is the newest: six that save no newer one are enough.
newest() { set -- "$dir"/run/checkpoints/step-*.safetensors; echo "${!#}"; }
stuck() {
    [ "$(grep -cxF "$(newest)" "$dir/starts")" -ge 6 ] && echo "gave up: 6 starts saved no more"
}
newest >>"$dir/starts"

# A run goes on with its own settings.
if [ -f "$dir/run/config.toml" ]; then
    what=(--resume "$dir/run")
else
    read -ra options <<<"${ARGS:-}"
    what=(${DATA:+"$DATA"} --out "$dir/run" "${options[@]}")
fi

# TERM (bkill) comes to mpirun too: be there when that has saved, and don't queue the job again.
killed=
trap killed=yes TERM

status=0
timeout --foreground --preserve-status --signal=USR1 "$SAVE_AFTER" \
    mpirun -n "$LSB_DJOB_NUMPROC" --bind-to "$BIND" dptrain train "${what[@]}" || status=$?

# 75: saved, to go on later
if [ "$status" = 75 ] && stuck; then status=1; fi
if [ -n "$killed" ]; then status=143; fi
exit "$status"
