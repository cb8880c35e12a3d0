#!/bin/bash
#SBATCH --job-name=birdsong
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=16
#SBATCH --gpus-per-node=1
#SBATCH --time=24:00:00
#SBATCH --output=birdsong-%j.log
#SBATCH --signal=B:TERM@120
#
# A study as one SLURM job: Ray runs on every node of the allocation, the study on the first node.
# All processes end with the job. Submit it from the project's folder, which every node must see:
#
#   sbatch slurm.sh --preset full --data /lab/recordings --out /lab/runs/full
#   sbatch --nodes=4 --gpus-per-node=0 slurm.sh --preset demo --out ~/runs/demo search.n_trials=40
#
# Options after slurm.sh go to study/run_tune.py; --data and --out are folders that every node sees.
# Options before slurm.sh win over the lines above; add your partition and account there. When the
# time is over, submit the same line again: the study goes on from its checkpoints. Two jobs may
# share a node: each has its own ports, token and folders.
#
# Two environment variables: BIRDSONG_VENV is the virtual environment (default: .venv in the
# project's folder), BIRDSONG_TMP is a folder on each node's own disk (default: /tmp).
set -euo pipefail

: "${SLURM_JOB_ID:?is not set: submit this file with sbatch}"
cd "${SLURM_SUBMIT_DIR:?}"
venv=${BIRDSONG_VENV:-$PWD/.venv}
for path in study/run_tune.py "$venv/bin/ray"; do
  [ -e "$path" ] || { echo "error: there is no $path in $PWD (make setup)" >&2; exit 2; }
done
# shellcheck disable=SC1091
source "$venv/bin/activate"

mapfile -t nodes < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
head=${nodes[0]} # where this script runs
# Ray's folder on each node, closed to others, because Ray's own files in it are open to every user
# of the node. Ray adds 65 letters to the path; the system allows 107.
tmp=${BIRDSONG_TMP:-/tmp}/birdsong-$SLURM_JOB_ID
token=$HOME/.ray/birdsong-$SLURM_JOB_ID.token
steps=()

# NODE COMMAND...: runs a task on this node with all resources of the job there. It replaces the
# calling shell, so that a signal to that process reaches srun, which passes it on to the task.
on() {
  exec srun --nodes=1 --ntasks=1 --nodelist="$1" --cpus-per-task="${SLURM_CPUS_PER_TASK:-1}" \
    --overlap --input=none "${@:2}"
}

clean_up() {
  local code=$?
  trap - EXIT
  trap '' TERM
  set +e
  # End the study first, then the workers, then the head: workers need it to end in order.
  for ((i = ${#steps[@]} - 1; i >= 0; i--)); do
    kill -TERM "${steps[i]}" 2>/dev/null
    wait "${steps[i]}" 2>/dev/null
  done
  for node in "${nodes[@]}"; do (on "$node" rm -rf "$tmp"); done
  rm -f "$token"
  exit $code
}
trap clean_up EXIT
trap 'echo "stopped; submit the same line again to go on" >&2; exit 143' TERM

# Every Ray process of the job must show this secret.
(umask 077 && mkdir -p "${token%/*}" && od -An -N32 -tx1 /dev/urandom | tr -d ' \n' >"$token")
export RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH=$token
# One core per task; no metrics on open ports, no dashboard, no usage report to Ray's makers.
export OMP_NUM_THREADS=1 RAY_USAGE_STATS_ENABLED=0
export RAY_enable_metrics_collection=0 AUTOSCALER_METRIC_PORT=-1 DASHBOARD_METRIC_PORT=-1

# The system chooses every port (0), so that none is taken; only Ray Client needs a number.
free_port='import socket; s = socket.socket(); s.bind(("", 0)); print(s.getsockname()[1])'
options=(--block --temp-dir="$tmp/ray" --num-cpus="${SLURM_CPUS_PER_TASK:-1}"
  --min-worker-port=0 --max-worker-port=0 --dashboard-agent-listen-port=0)
if [ -n "${SLURM_MEM_PER_NODE:-}" ]; then # in megabytes; Ray would count the whole machine's memory
  options+=(--object-store-memory=$((SLURM_MEM_PER_NODE * 300000)))
fi
# shellcheck disable=SC2016
make_folder='mkdir -p -m 700 "$0" && [ -O "$0" ] || { echo "error: $0 is not ours" >&2; exit 1; }'
for node in "${nodes[@]}"; do (on "$node" bash -c "$make_folder" "$tmp"); done
on "$head" ray start --head --port=0 --ray-client-server-port="$(python -c "$free_port")" \
  --include-dashboard=false "${options[@]}" &
steps+=($!)

wait_for() { # WHAT SECONDS COMMAND...: waits until the command succeeds; an error if Ray has ended
  local deadline=$((SECONDS + $2))
  until "${@:3}"; do
    for step in "${steps[@]}"; do
      kill -0 "$step" 2>/dev/null || { echo "error: Ray ended while waiting for $1" >&2; exit 1; }
    done
    [ $SECONDS -lt $deadline ] || { echo "error: no $1 within $2 s" >&2; exit 1; }
    sleep 2
  done
}

head_is_up() { [ -s "$tmp/ray/ray_current_cluster" ]; }
wait_for "head on $head" 300 head_is_up
address=$(<"$tmp/ray/ray_current_cluster")

for node in "${nodes[@]:1}"; do
  on "$node" ray start --address="$address" "${options[@]}" &
  steps+=($!)
done
all_are_up() { [ "$(ray status --address="$address" 2>/dev/null | grep -c ' node_')" -ge ${#nodes[@]} ]; }
wait_for "${#nodes[@]} nodes" 600 all_are_up
echo "Ray at $address on ${nodes[*]}"

python study/run_tune.py "$@" --address "$address" &
steps+=($!)
wait $!
