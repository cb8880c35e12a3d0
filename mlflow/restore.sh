#!/usr/bin/env bash
# Put a copy that backup.sh made into a new, empty server. What is there already is never replaced.
# Usage: mlflow/restore.sh FOLDER/mlflow-<date>-<time>
#
# First run mlflow/make_secrets.sh HOST there, and do not start the server before this.
set -euo pipefail

here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"

stop() {
    echo "restore.sh: $1" >&2
    exit 1
}

in_postgres() {
    docker compose -f "$here/compose.yaml" exec -T postgres "$@"
}

if [[ $# -ne 1 || -z "$1" ]]; then
    echo "usage: mlflow/restore.sh FOLDER/mlflow-<date>-<time>" >&2
    exit 2
fi
[[ -f "$1/SHA256SUMS" ]] || stop "$1 is no copy that backup.sh made: it holds no SHA256SUMS"
copy="$(cd "$1" && pwd)"
(cd "$copy" && sha256sum --quiet --check SHA256SUMS) || stop "$copy is damaged: take another copy"

[[ -d "$here/server/artifacts" ]] || stop "run mlflow/make_secrets.sh first"
[[ -z "$(ls -A "$here/server/artifacts")" ]] ||
    stop "$here/server/artifacts is not empty: restore into a new server"
docker compose -f "$here/compose.yaml" up --detach --wait postgres
for database in mlflow mlflow_users; do
    tables="$(in_postgres psql --username=postgres --no-psqlrc --tuples-only --no-align \
        --command="SELECT count(*) FROM pg_tables WHERE schemaname = 'public'" "$database")"
    [[ "$tables" == 0 ]] || stop "the database $database is not empty: restore into a new server"
done
for database in mlflow mlflow_users; do
    # All or nothing, and owned by MLflow's own account.
    in_postgres pg_restore --username=postgres --dbname="$database" --no-owner --role=mlflow \
        --exit-on-error --single-transaction <"$copy/$database.dump"
done
cp -a "$copy/artifacts/." "$here/server/artifacts/"
echo "Restored. Users and their passwords are those of the copy, the one of admin too: put it into"
echo "mlflow/secrets/admin_password. Next: docker compose -f mlflow/compose.yaml up --detach --wait"
