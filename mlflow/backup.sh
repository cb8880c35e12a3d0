#!/usr/bin/env bash
# Copy the laboratory's records to a folder of their own, while the server runs.
# Usage: mlflow/backup.sh FOLDER      makes FOLDER/mlflow-<date>-<time>
set -euo pipefail

here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
if [[ $# -ne 1 || -z "$1" ]]; then
    echo "usage: mlflow/backup.sh FOLDER" >&2
    exit 2
fi
umask 077
mkdir -p "$1"
copy="$(cd "$1" && pwd)/mlflow-$(date +%Y%m%d-%H%M%S)"
part="$copy.part" # a name that says so until the copy is whole
if [[ -e "$copy" || -e "$part" ]]; then
    echo "backup.sh: $copy is there already" >&2
    exit 1
fi
mkdir "$part"
trap 'rm -rf "$part"' EXIT

# Numbers first, files afterwards: so each file that the numbers speak of is in the copy.
for database in mlflow mlflow_users; do
    docker compose -f "$here/compose.yaml" exec -T postgres \
        pg_dump --username=postgres --format=custom "$database" >"$part/$database.dump"
done
cp -a "$here/server/artifacts" "$part/artifacts"
sums="$(cd "$part" && find . -type f -print0 | sort -z | xargs -0 sha256sum)"
printf '%s\n' "$sums" >"$part/SHA256SUMS"
sync -f "$part/SHA256SUMS"
mv "$part" "$copy"
trap - EXIT
echo "$copy"
