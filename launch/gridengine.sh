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
#
# Shortly before its time is up the run is saved and the job queued again, to go on from there,
# as often as it takes. So it does where a node fails. The bytes are those of a run that was never
# disturbed.

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
# started over after a node has failed, it goes on
#$ -r y

set -eo pipefail

# The MPI that mpi4py uses, and dptrain itself (a job does not inherit your PATH). mpirun has
# to be of that same MPI: with another's, every process thinks it is alone.
#module load mpich
#source venv/bin/activate

# Each rank stays on a core of its own. Use `none` on nodes shared with other jobs where Grid
# Engine does not keep jobs to their own cores: two jobs would take the same ones.
BIND=core

# Seconds from the start after which the ranks save and the job is queued again: a little less
# than its time.
SAVE_AFTER=3480
# ---- end of what to change ----

set -u  # only here: module and activate may use unset variables

# A rank has one core. More threads also change the last bits of the result.
export OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 MKL_NUM_THREADS=1

dir=dptrain-$JOB_ID
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
    what=(${DATA:+"$DATA"} --out "$dir/run" "$@")
fi

# TERM (qdel) comes to mpirun too: be there when that has saved, and don't queue the job again.
killed=
trap killed=yes TERM

status=0
timeout --foreground --preserve-status --signal=USR1 "$SAVE_AFTER" \
    mpirun -n "$NSLOTS" --bind-to "$BIND" dptrain train "${what[@]}" || status=$?

# 75: saved, to go on later. Grid Engine queues a job again that ends with 99.
if [ "$status" = 75 ] && [ -z "$killed" ] && ! stuck; then status=99; fi
exit "$status"
