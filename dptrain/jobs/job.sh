#!/bin/bash
#@ slurm
# dptrain on Slurm, the ranks started by srun.
#@ slurm-mpirun
# dptrain on Slurm, the ranks started by the MPI's own mpirun: for where srun and the MPI library do
# not fit together.
#@ pbs
# dptrain on PBS Professional or OpenPBS. Untested: written from the scheduler's documentation.
#@ lsf
# dptrain on LSF. Untested: written from the scheduler's documentation.
#@ gridengine
# dptrain on Grid Engine (Sun, Son of, Univa, Altair, Open Cluster Scheduler). Untested: written from
# the scheduler's documentation.
#@ all
#
#@ slurm slurm-mpirun
#     DATA=data.npz sbatch --nodes=2 job.sh --shards 8 --epochs 5
#
# What stands after the script's name is handed to `dptrain train`; without DATA it trains on the
# embedded digits. All output is in one directory, dptrain-<job id>: log.txt and run/. Slurm's own
# file, dptrain-<job id>.out, has only what comes before, and how the job ended.
#
# Shortly before its time is up, and where another job takes its place, the run is saved and the
# job queued again under its number, to go on from there: as often as it takes, with the bytes of
# a run that was never disturbed. To stop it for good: scancel.
#
# Tried on Slurm 22.05 with MPICH 5.0, on one node and across two.
#@ pbs
#     qsub -v DATA=data.npz,ARGS="--shards 8 --epochs 5" job.sh
#
# qsub hands no arguments to a script, so those of `dptrain train` come in ARGS (split at
# blanks; a value with commas needs quotes inside: "ARGS='--hidden 64,32'"). PBS's own file,
#@ lsf
#     DATA=data.npz ARGS="--shards 8 --epochs 5" bsub < job.sh
#
# bsub reads the #BSUB lines from its standard input, and hands no arguments to a script that
# comes from there: those of `dptrain train` come in ARGS (split at blanks). LSF's own report,
#@ gridengine
#     qsub -v DATA=data.npz job.sh --shards 8 --epochs 5
#
# What stands after the script's name is handed to `dptrain train`. Grid Engine's own file,
#@ pbs lsf gridengine
# beside where the job was handed in, has only what comes before: all other output is in one
# directory there, dptrain-<job id>, as log.txt and run/. Without DATA it trains on the embedded
# digits.
#
# Shortly before its time is up the run is saved and the job queued again, to go on from there,
# as often as it takes. So it does where a node fails. The bytes are those of a run that was never
# disturbed.
#@ all

# ---- change these ----
#@ slurm slurm-mpirun
# nodes, ranks a node (at most its cores), time (hh:mm:ss); your site may want more of them
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=4
#SBATCH --time=01:00:00
##SBATCH --partition=...
##SBATCH --account=...
#SBATCH --job-name=dptrain
# one rank a core, also where a core has two hardware threads
#SBATCH --ntasks-per-core=1
# seconds before the end at which the ranks are to save: more for a model of many gigabytes
#SBATCH --signal=USR1@120
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=dptrain-%j.out
#@ pbs
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
#@ lsf
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
#@ gridengine
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
#@ all

set -eo pipefail
#@ pbs
cd "$PBS_O_WORKDIR"  # a job starts in the home directory
#@ all

# The MPI that mpi4py uses, and dptrain itself (a job may not inherit your PATH).
#@ slurm-mpirun pbs lsf gridengine
# mpirun has to be of that same MPI: with another's, every process thinks it is alone.
#@ all
#module load mpich
#source venv/bin/activate

#@ pbs
# MPICH reaches the other nodes with ssh. Where that is closed, try PBS's own way:
#export HYDRA_LAUNCHER=rsh HYDRA_LAUNCHER_EXEC=pbs_tmrsh

#@ slurm
# How srun tells the ranks of each other; `srun --mpi=list` shows what this Slurm can do.
#   pmi2  MPICH, also the one that comes with pip install mpich; Intel MPI, which
#         needs export I_MPI_PMI_LIBRARY=<Slurm's libpmi2.so> as well
#   pmix  Open MPI
# With one that does not fit (the default is often none) every process thinks it is alone, and
# dptrain stops with an error.
MPI=pmi2
#@ slurm-mpirun pbs lsf gridengine
# Each rank stays on a core of its own. Use `none` on nodes shared with other jobs where the
# scheduler does not keep jobs to their own cores: two jobs would take the same ones.
BIND=core
#@ pbs lsf gridengine

# Seconds from the start after which the ranks save and the job is queued again: a little less
# than its time.
SAVE_AFTER=3480
#@ all
# ---- end of what to change ----

set -u  # only here: module and activate may use unset variables

# A rank has one core. More threads also change the last bits of the result.
export OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 MKL_NUM_THREADS=1

#@ slurm slurm-mpirun
dir=dptrain-$SLURM_JOB_ID
#@ pbs
dir=${DIR:-dptrain-${PBS_JOBID%%.*}}
#@ lsf
dir=dptrain-$LSB_JOBID
#@ gridengine
dir=dptrain-$JOB_ID
#@ all
mkdir -p "$dir"
exec >>"$dir/log.txt" 2>&1

# Each start notes which checkpoint is the newest: six that save no newer one are enough.
newest() { set -- "$dir"/run/checkpoints/step-*.safetensors; echo "${!#}"; }
stuck() {
    [ "$(grep -cxF "$(newest)" "$dir/starts")" -ge 6 ] && echo "gave up: 6 starts saved no more"
}
newest >>"$dir/starts"

#@ pbs
if [ ! -f "$dir/job.sh" ]; then cp "$0" "$dir/job.sh"; fi
ranks=$(wc -l <"$PBS_NODEFILE")  # a line for each rank

#@ pbs lsf
read -ra options <<<"${ARGS:-}"
set -- "${options[@]}"

#@ slurm-mpirun
# mpirun starts one helper a node through srun; bound to one core, it would put all of its
# ranks there.
export SLURM_CPU_BIND=none

#@ pbs lsf gridengine
# TERM (by who ends the job) comes to mpirun too: be there when that has saved, and don't queue the
# job again.
killed=
trap killed=yes TERM

#@ slurm
# --kill-on-bad-exit: without it the job hangs until its time is up when one rank dies.
#@ all
status=0
#@ slurm
srun --mpi="$MPI" --kill-on-bad-exit=1 --cpu-bind=cores \
#@ pbs lsf gridengine
timeout --foreground --preserve-status --signal=USR1 "$SAVE_AFTER" \
#@ slurm-mpirun
mpirun -n "$SLURM_NTASKS" --bind-to "$BIND" \
#@ pbs
    mpirun -n "$ranks" --bind-to "$BIND" \
#@ lsf
    mpirun -n "$LSB_DJOB_NUMPROC" --bind-to "$BIND" \
#@ gridengine
    mpirun -n "$NSLOTS" --bind-to "$BIND" \
#@ all
    dptrain train ${DATA:+"$DATA"} --out "$dir/run" --continue "$@" || status=$?

#@ slurm slurm-mpirun
# 75: saved, to go on later
if [ "$status" = 75 ] && ! stuck; then scontrol requeue "$SLURM_JOB_ID"; fi
#@ pbs
# 75: saved, to go on later; in a new job, as PBS lets only its operators queue one again
if [ "$status" = 75 ] && [ -z "$killed" ] && ! stuck; then
    export DIR=$dir DATA=${DATA:-} ARGS=${ARGS:-}
    qsub -v DIR,DATA,ARGS "$dir/job.sh"
fi
#@ lsf
# 75: saved, to go on later
if [ "$status" = 75 ] && stuck; then status=1; fi
if [ -n "$killed" ]; then status=143; fi
#@ gridengine
# 75: saved, to go on later. Grid Engine queues a job again that ends with 99.
if [ "$status" = 75 ] && [ -z "$killed" ] && ! stuck; then status=99; fi
#@ all
exit "$status"
