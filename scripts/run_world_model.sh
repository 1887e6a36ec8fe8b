#!/bin/bash
#SBATCH --job-name=world_model
#SBATCH --gres=gpu:4
#SBATCH --cpus-per-task=32
#SBATCH --mem=128G
#SBATCH --ntasks-per-node=1
#SBATCH --open-mode=append
#SBATCH --requeue
#SBATCH --signal=B:USR1@180

# Trains a world model on all GPUs of all nodes of the job, or in CPU processes where there is no GPU:
#
#     sbatch scripts/run_world_model.sh [any flag of train/world_model/train_world_model.py]
#     sbatch --nodes=2 scripts/run_world_model.sh --config configs/world_model_carla.yaml
#     scripts/run_world_model.sh --num-epochs 2          without Slurm, on this machine
#
# Three minutes before the time limit it saves and is queued again; once it runs again it goes on. For the
# same at any moment: scancel --batch --signal=USR1 JOB. scancel and scontrol requeue let it save, too, for as
# long as Slurm's KillWait.
# PYTHON names the interpreter (default: .venv/bin/python if there is one), PROCESSES how many processes a
# node runs (default: one for each GPU, or one for each 8 CPUs).
set -uo pipefail

# The program saves at SIGTERM and leaves.
leave=false again=false child=
stop() {
    leave=true
    if [[ -z $child ]]; then
        return
    elif [[ -n ${SLURM_JOB_ID:-} ]]; then
        # Not through srun: at SIGTERM it kills what it started, unsaved.
        scancel --signal=TERM "$SLURM_JOB_ID"
    else
        kill -TERM "$child" 2>/dev/null
    fi
}
trap 'again=true; stop' USR1
trap stop INT
if [[ -n ${SLURM_JOB_ID:-} ]]; then
    # Slurm has sent it to the whole job: once more would hurry torchrun.
    trap 'leave=true' TERM
else
    trap stop TERM
fi

# Slurm runs a copy of this file: the repository is where `sbatch` was called.
program=train/world_model/train_world_model.py
[[ -f $program ]] || cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 1
if [[ ! -f $program ]]; then
    echo "run_world_model.sh: no $program in $PWD: call it in the repository's folder" >&2
    exit 1
fi
if [[ -z ${PYTHON:-} ]]; then
    PYTHON=python3
    [[ -x .venv/bin/python ]] && PYTHON=.venv/bin/python
fi

# Flags that are given go before these; a config file goes before all of them.
defaults=(
    --state-dim 256
    --action-dim 3
    --hidden-dim 512
    --latent-dim 32
    --batch-size 64
    --sequence-length 50
    --learning-rate 3e-4
    --num-epochs 100
    --kl-weight 1.0
    --reconstruction-weight 1.0
    --data-path ./data/world_model
    --output-dir ./output/world_model
)
given=" ${*//_/-} "
flags=()
if [[ $given != *" --config"[=\ ]* ]]; then
    for ((i = 0; i < ${#defaults[@]}; i += 2)); do
        name=${defaults[i]}
        [[ $name == --output-dir && $given == *" --run"[=\ ]* ]] && continue
        [[ $given == *" $name"[=\ ]* ]] || flags+=("$name" "${defaults[i + 1]}")
    done
fi
[[ $given == *" --resume "* || $given == *" --auto-resume "* ]] || flags+=(--auto-resume)

cpus=${SLURM_CPUS_PER_TASK:-$(nproc)}
if [[ -z ${PROCESSES:-} ]]; then
    PROCESSES=$("$PYTHON" -c 'import torch; print(torch.cuda.device_count())') || exit 1
    ((PROCESSES > 0)) || PROCESSES=$((cpus / 8 > 0 ? cpus / 8 : 1))
fi
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-$((cpus / PROCESSES > 0 ? cpus / PROCESSES : 1))}

# Saving may take longer than torchrun's half a minute.
export TORCH_ELASTIC_SHUTDOWN_TIMEOUT=${TORCH_ELASTIC_SHUTDOWN_TIMEOUT:-150}

command=("$PYTHON" -m torch.distributed.run --nproc-per-node "$PROCESSES")
if [[ -n ${SLURM_JOB_ID:-} ]]; then
    first=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
    command=(
        srun --ntasks-per-node=1 --cpus-per-task="$cpus" --kill-on-bad-exit=1
        "${command[@]}" --nnodes "${SLURM_JOB_NUM_NODES:-1}" --rdzv-backend c10d
        --rdzv-id "$SLURM_JOB_ID" --rdzv-endpoint "$first:$((20000 + SLURM_JOB_ID % 10000))"
    )
else
    command+=(--standalone)
fi

status=143
if ! $leave; then
    "${command[@]}" "$program" "${flags[@]}" "$@" &
    child=$!
    # A signal ends `wait`, not what was waited for.
    while true; do
        wait "$child"
        status=$?
        kill -0 "$child" 2>/dev/null || break
    done
fi
if $again && [[ -n ${SLURM_JOB_ID:-} ]]; then
    echo "run_world_model.sh: asked to make room: queued again"
    scontrol requeue "$SLURM_JOB_ID" && exit 0
fi
exit "$status"
