#!/usr/bin/env bash
# Who may use the laboratory's server. Run it on the server, as the account that ran make_secrets.sh.
#
#   mlflow/users.sh add NAME reader      looks at everything
#   mlflow/users.sh add NAME writer      makes experiments of its own and writes to these; for a study
#   mlflow/users.sh password NAME        a new password
#   mlflow/users.sh remove NAME
#   mlflow/users.sh list
#
# A new password is printed once. Nobody can read it afterwards.
set -euo pipefail

here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"

usage() {
    sed -n '4,8s/^# *//p' "${BASH_SOURCE[0]}" >&2
    exit 2
}

stop() {
    echo "users.sh: $1" >&2
    exit 1
}

[[ -r "$here/.env" && -r "$here/secrets/admin_password" ]] ||
    stop "no $here/.env or secrets/admin_password: run mlflow/make_secrets.sh, as the same account"
# shellcheck source=/dev/null
source "$here/.env"
server="https://$PUBLIC_HOST:$PUBLIC_PORT"

# Ask the server. The password and the body go through a pipe: a command line is everybody's to read.
ask() {
    local method="$1" path="$2" body="$3" answer status
    answer="$(
        printf 'user = "admin:%s"\n' "$(<"$here/secrets/admin_password")" |
            curl --config - --silent --show-error --max-time 60 --write-out '\n%{http_code}' \
                --cacert "$here/secrets/tls.crt" \
                --resolve "$PUBLIC_HOST:$PUBLIC_PORT:127.0.0.1" --request "$method" \
                --header 'Content-Type: application/json' --data @<(printf '%s' "$body") \
                "$server$path"
    )" || stop "the server at $server does not answer: docker compose -f mlflow/compose.yaml ps"
    status="${answer##*$'\n'}"
    answer="${answer%$'\n'*}"
    # Only what it says, not the database's own words: these hold the hash of a password.
    [[ "$status" == 2* ]] || stop "the server refused ($status): $(
        sed -n 's/.*"message": *"\(\([^"\\]\|\\.\)*\)".*/\1/; s/ Error: .*//; 1p' <<<"$answer"
    )"
    printf '%s' "$answer"
}

allow() { # NAME TYPE PERMISSION: on everything of that type
    ask POST /api/3.0/mlflow/users/permissions/grant \
        "{\"username\":\"$1\",\"resource_type\":\"$2\",\"resource_id\":\"*\",\"permission\":\"$3\"}" \
        >/dev/null
}

show_password() {
    echo "user      $1"
    echo "password  $2"
    echo "Write it down now: it is shown only here."
}

[[ $# -ge 1 ]] || usage
command="$1"
name="${2:-}"
if [[ "$command" != list && ! "$name" =~ ^[A-Za-z0-9][A-Za-z0-9._-]*$ ]]; then
    echo "users.sh: a name is made of letters, digits, . _ and -; not '$name'" >&2
    usage
fi

case "$command/$#" in
    add/3)
        role="$3"
        [[ "$role" == reader || "$role" == writer ]] || usage
        password="$(openssl rand -hex 16)"
        ask POST /api/2.0/mlflow/users/create \
            "{\"username\":\"$name\",\"password\":\"$password\"}" >/dev/null
        # MLflow lets everybody make experiments and models, and whoever made one do anything with
        # it. Rules on runs and versions are narrower and win: with READ or EDIT these cannot be
        # deleted, nor what holds them.
        parts=(run logged_model registered_model_version)
        if [[ "$role" == reader ]]; then
            for part in experiment registered_model "${parts[@]}"; do allow "$name" "$part" READ; done
        else
            for part in "${parts[@]}"; do allow "$name" "$part" EDIT; done
        fi
        show_password "$name" "$password"
        ;;
    password/2)
        password="$(openssl rand -hex 16)"
        ask PATCH /api/2.0/mlflow/users/update-password \
            "{\"username\":\"$name\",\"password\":\"$password\"}" >/dev/null
        if [[ "$name" == admin ]]; then
            (umask 077 && printf '%s\n' "$password" >"$here/secrets/admin_password")
        fi
        show_password "$name" "$password"
        ;;
    remove/2)
        ask DELETE /api/2.0/mlflow/users/delete "{\"username\":\"$name\"}" >/dev/null
        echo "$name is removed; what $name wrote stays"
        ;;
    list/1)
        ask GET /api/2.0/mlflow/users/list '{}' | grep -o '"username":"[^"]*"' | cut -d'"' -f4
        ;;
    *) usage ;;
esac
