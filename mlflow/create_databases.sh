#!/usr/bin/env bash
# The two databases and the account of MLflow. PostgreSQL's image runs this once, at its first start.
set -euo pipefail

# MLflow's own account is no superuser: who speaks through the server cannot run commands on it.
# The password goes through a psql variable, so that no list of processes shows it.
DATABASE_PASSWORD="$(<"${SECRETS_DIR:-/run/secrets}/database_password")"
export DATABASE_PASSWORD
psql --set ON_ERROR_STOP=1 --no-psqlrc --quiet --username "$POSTGRES_USER" --dbname postgres <<'SQL'
\getenv password DATABASE_PASSWORD
CREATE ROLE mlflow LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE PASSWORD :'password';
CREATE DATABASE mlflow OWNER mlflow;
CREATE DATABASE mlflow_users OWNER mlflow;
REVOKE CONNECT ON DATABASE mlflow, mlflow_users FROM PUBLIC;
SQL
