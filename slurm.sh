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
# Three environment variables: BIRDSONG_VENV is the virtual or conda environment (default: .venv in
# the project's folder), BIRDSONG_IMAGE is an Apptainer image that replaces it, and BIRDSONG_TMP is
# a folder on each node's own disk (default: /tmp).
set -euo pipefail
set -m # without job control, the shell's background processes would ignore SIGINT

: "${SLURM_JOB_ID:?is not set: submit this file with sbatch}"
cd "${SLURM_SUBMIT_DIR:?}"
venv=${BIRDSONG_VENV:-$PWD/.venv}
for path in study/run_tune.py "${BIRDSONG_IMAGE:-$venv/bin/ray}"; do
  [ -e "$path" ] || { echo "error: there is no $path in $PWD (make setup)" >&2; exit 2; }
done
inside=(env) # what every command of the environment begins with
if [ -n "${BIRDSONG_IMAGE:-}" ]; then
  inside=(apptainer exec --nv --bind "${BIRDSONG_TMP:-/tmp}" "$BIRDSONG_IMAGE")
else
  PATH=$venv/bin:$PATH
fi

mapfile -t nodes < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
n_nodes=${#nodes[@]}
head=${nodes[0]} # where this script runs
# Ray's folder on each node, closed to others, because Ray's own files in it are open to every user
# of the node. Ray adds 65 letters to the path; the system allows 107.
tmp=${BIRDSONG_TMP:-/tmp}/birdsong-$SLURM_JOB_ID
token=$HOME/.ray/birdsong-$SLURM_JOB_ID.token
steps=()

# NODE COMMAND...: runs a task on this node with all resources of the job there. It replaces the
# calling shell, so that a signal to that process reaches srun. On SIGTERM srun kills the task; with
# --disable-status it passes SIGINT on.
on() {
  exec srun --nodes=1 --ntasks=1 --nodelist="$1" --cpus-per-task="${SLURM_CPUS_PER_TASK:-1}" \
    --overlap --input=none --disable-status "${@:2}"
}

end() { # PROCESS...: each is interrupted, then all are waited for
  [ $# -eq 0 ] || { kill -INT "$@" && wait "$@"; } 2>/dev/null
}

clean_up() {
  local code=$?
  trap - EXIT
  trap '' TERM
  set +eu # older shells call an empty list unset
  # The signal may have come before the last process was noted.
  [[ " ${steps[*]} " == *" ${!-} "* ]] || steps+=("$!")
  # End the study first, then all workers, then the head: workers need it to end in order.
  end "${steps[@]:n_nodes}"
  end "${steps[@]:1:n_nodes-1}"
  end "${steps[@]:0:1}"
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
# In megabytes, of --mem or --mem-per-cpu; Ray would count the whole machine's memory.
memory=${SLURM_MEM_PER_NODE:-$((${SLURM_MEM_PER_CPU:-0} * ${SLURM_CPUS_PER_TASK:-1}))}
if [ "$memory" -gt 0 ]; then options+=(--object-store-memory=$((memory * 300000))); fi
# A job that is queued again keeps its number: a folder of before may hold the old head's address.
# shellcheck disable=SC2016
make_folder='rm -rf "$0" && mkdir -p -m 700 "$0" && [ -O "$0" ] ||
  { echo "error: $0 is not ours" >&2; exit 1; }'
for node in "${nodes[@]}"; do (on "$node" bash -c "$make_folder" "$tmp"); done

# NODE OPTIONS...: runs Ray on this node, with the GPUs that the job has there. Ray would count all
# that it sees.
start_ray() {
  # shellcheck disable=SC2016
  on "$1" bash -c 'exec "$@" --num-gpus="${SLURM_GPUS_ON_NODE:-0}"' bash \
    "${inside[@]}" ray start "${@:2}" "${options[@]}"
}
head_options=(--ray-client-server-port="$("${inside[@]}" python -c "$free_port")")
if [ "$n_nodes" -gt 1 ]; then # the head's address in the network that leads to the other nodes
  own_address='import socket, sys; s = socket.socket(type=socket.SOCK_DGRAM)
s.connect((sys.argv[1], 1)); print(s.getsockname()[0])'
  own_ip=$("${inside[@]}" python -c "$own_address" "${nodes[1]}")
  head_options+=(--node-ip-address="$own_ip")
fi
start_ray "$head" --head --port=0 --include-dashboard=false "${head_options[@]}" &
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
  start_ray "$node" --address="$address" &
  steps+=($!)
done
n_up() { "${inside[@]}" ray status --address="$address" 2>/dev/null | grep -c ' node_'; }
all_are_up() { [ "$(n_up)" -ge "$n_nodes" ]; }
wait_for "$n_nodes nodes" 600 all_are_up
echo "Ray at $address on ${nodes[*]}"

"${inside[@]}" python study/run_tune.py "$@" --address "$address" &
steps+=($!)
wait $!
