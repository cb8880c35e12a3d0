#!/usr/bin/env bash
# Once, before the first start of compose.yaml: passwords, a certificate, and folders for the data.
# Usage: mlflow/make_secrets.sh HOST [port]      HOST: the server's name, such as mlflow.example.org
# What is there already stays as it is.
set -euo pipefail

here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
host="${1:-}"
port="${2:-443}"

if [[ $# -lt 1 || $# -gt 2 || ! "$host" =~ ^[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?$ ]] ||
    [[ ! "$port" =~ ^[0-9]{1,5}$ ]] || ((10#$port < 1 || 10#$port > 65535)); then
    echo "usage: mlflow/make_secrets.sh HOST [port]    such as mlflow.example.org, default port 443" >&2
    exit 2
fi
if ((EUID == 0)); then
    echo "not as root: the server runs as the account that runs this, and owns the records" >&2
    exit 1
fi
if ! command -v openssl >/dev/null; then
    echo "openssl is not installed. On Debian: apt install openssl" >&2
    exit 1
fi

umask 077
mkdir -p "$here/secrets" "$here/server/database" "$here/server/artifacts"
chmod 700 "$here/secrets"
cd "$here/secrets"

for name in admin_password database_password postgres_password flask_secret_key; do
    [[ -s "$name" ]] || openssl rand -hex 32 >"$name"
done
[[ -s pgpass ]] || echo "*:*:*:mlflow:$(<database_password)" >pgpass

# A certificate of our own. Put one of the institute's in its place, under the same names.
if [[ ! -s tls.crt || ! -s tls.key ]]; then
    openssl req -x509 -newkey rsa:2048 -nodes -days 825 -subj "/CN=$host" \
        -addext "subjectAltName=DNS:$host" -keyout tls.key -out tls.crt 2>/dev/null
fi
chmod 600 -- *

# compose.yaml reads these. The containers run as you: they can read your secrets, and no others.
cat >"$here/.env" <<EOF
PUBLIC_HOST=$host
PUBLIC_PORT=$port
RUN_AS=$(id -u):$(id -g)
EOF

echo "The passwords are in $here/secrets, readable by $(id -un) alone. Next:"
echo "  docker compose -f mlflow/compose.yaml up --detach --build --wait"
