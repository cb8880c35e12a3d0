#!/usr/bin/env bash
# Show the records of all studies: start the MLflow server on the database beside this script.
# Usage: mlflow/serve.sh [port]        (default 5000; Ctrl-C stops it)
set -euo pipefail

here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
port="${1:-5000}"

if [[ $# -gt 1 || ! "$port" =~ ^[0-9]{1,5}$ ]] || ((10#$port < 1 || 10#$port > 65535)); then
    echo "usage: mlflow/serve.sh [port]    port: 1 to 65535, default 5000" >&2
    exit 2
fi

mlflow="$here/../.venv/bin/mlflow"
if [[ ! -x "$mlflow" ]] && ! mlflow="$(command -v mlflow)"; then
    echo "mlflow is not installed: pip install -r requirements.txt" >&2
    exit 1
fi

mkdir -p "$here/artifacts"

# The server is for this computer alone and asks for no password. It must not run jobs, and one
# process is enough (the default takes almost 2 GB of memory).
export MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false
# These may point to another server; this one always shows the files beside it.
unset MLFLOW_TRACKING_URI MLFLOW_REGISTRY_URI

echo "Wait 10 to 20 seconds, then open  http://127.0.0.1:$port  (Ctrl-C stops it)"
# In a URI, MLflow takes %20 for a space, and a question mark for the end of the path.
path="${here//%/%25}"
exec "$mlflow" server \
    --backend-store-uri "sqlite:///${path//\?/%3F}/mlflow.db" \
    --artifacts-destination "$here/artifacts" \
    --host 127.0.0.1 --port "$port" --workers 1 \
    --allowed-hosts "localhost,localhost:*,127.0.0.1,127.0.0.1:*"
