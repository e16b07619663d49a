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
#
# Shortly before its time is up the run is saved and the job queued again, to go on from there,
# as often as it takes. So it does where a node fails. The bytes are those of a run that was never
# disturbed.

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
# started over after a node has failed, it goes on
#PBS -r y

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

# Seconds from the start after which the ranks save and the job is queued again: a little less
# than its time.
SAVE_AFTER=3480
# ---- end of what to change ----

set -u  # only here: module and activate may use unset variables

# A rank has one core. More threads also change the last bits of the result.
export OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 MKL_NUM_THREADS=1

dir=${DIR:-dptrain-${PBS_JOBID%%.*}}
mkdir -p "$dir"
exec >>"$dir/log.txt" 2>&1
if [ ! -f "$dir/job.sh" ]; then cp "$0" "$dir/job.sh"; fi

ranks=$(wc -l <"$PBS_NODEFILE")  # a line for each rank

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

# TERM (qdel) comes to mpirun too: be there when that has saved, and don't queue the job again.
killed=
trap killed=yes TERM

status=0
timeout --foreground --preserve-status --signal=USR1 "$SAVE_AFTER" \
    mpirun -n "$ranks" --bind-to "$BIND" dptrain train "${what[@]}" || status=$?

# 75: saved, to go on later; in a new job, as PBS lets only its operators queue one again
if [ "$status" = 75 ] && [ -z "$killed" ] && ! stuck; then
    export DIR=$dir DATA=${DATA:-} ARGS=${ARGS:-}
    qsub -v DIR,DATA,ARGS "$dir/job.sh"
fi
exit "$status"
