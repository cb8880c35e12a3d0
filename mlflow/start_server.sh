#!/usr/bin/env bash
# The MLflow server of a laboratory: PostgreSQL, a password for everyone, files served by the server.
# compose.yaml runs this in a container, the tests without one.
# Usage: start_server.sh [serve|upgrade]      upgrade: bring the databases to this MLflow's version
#
#   PUBLIC_HOST, PUBLIC_PORT    name in the address bar, such as mlflow.example.org; port if not 443
#   PGHOST, PGPORT, PGUSER      PostgreSQL
#   SECRETS_DIR                 passwords, one a file   (default /run/secrets)
#   ARTIFACTS_DIR               where files go          (default /artifacts)
#   LISTEN_HOST, LISTEN_PORT    where the proxy asks    (default 127.0.0.1, 5000)
set -euo pipefail

here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
secrets="${SECRETS_DIR:-/run/secrets}"
records="postgresql:///mlflow" # the rest comes from PGHOST, PGPORT, PGUSER and PGPASSFILE

secret() {
    if [[ ! -s "$secrets/$1" ]]; then
        echo "start_server.sh: the secret $secrets/$1 is missing or empty: run make_secrets.sh" >&2
        exit 1
    fi
    cat "$secrets/$1"
}

# libpq reads the database's password from this file, so that no command line shows it.
export PGPASSFILE="$secrets/pgpass"
export MLFLOW_DISABLE_TELEMETRY=true

case "${1:-serve}" in
    upgrade)
        mlflow db upgrade "$records"
        python -m mlflow.server.auth db upgrade --url "$(
            sed -n 's/^database_uri *= *//p' "$here/auth.ini"
        )"
        exit
        ;;
    serve) ;;
    *)
        echo "usage: start_server.sh [serve|upgrade]" >&2
        exit 2
        ;;
esac

host="${PUBLIC_HOST:?the name of the server as users type it, such as mlflow.example.org}"
# Browsers leave the usual port out.
port=":${PUBLIC_PORT:-443}"
origin="https://$host${port%:443}"

MLFLOW_FLASK_SERVER_SECRET_KEY="$(secret flask_secret_key)"
MLFLOW_AUTH_ADMIN_PASSWORD="$(secret admin_password)"
export MLFLOW_FLASK_SERVER_SECRET_KEY MLFLOW_AUTH_ADMIN_PASSWORD
export MLFLOW_AUTH_CONFIG_PATH="$here/auth.ini"
# An address for which MLflow has no rule is refused, not served to every user.
export MLFLOW_BASIC_AUTH_FAIL_CLOSED=true
# Nobody chooses where on this machine the files of an experiment lie: file:///run/secrets would do.
export MLFLOW_ARTIFACT_LOCATION_MAX_LENGTH=0
# The server runs nobody's code; the default would, and takes four times the memory.
export MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false

# The page's own requests come from the public address; all other origins stay refused. One
# process: it alone holds the cache of passwords (auth.ini).
exec mlflow server \
    --app-name basic-auth \
    --backend-store-uri "$records" \
    --artifacts-destination "${ARTIFACTS_DIR:-/artifacts}" \
    --host "${LISTEN_HOST:-127.0.0.1}" --port "${LISTEN_PORT:-5000}" --workers 1 \
    --allowed-hosts "$host,$host:*" \
    --cors-allowed-origins "$origin"
