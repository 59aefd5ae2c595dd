#!/usr/bin/env bash
# Writes what is generated, into the work tree or below the folder given: the custom resource
# definitions with the chart's copy, and the queries' recorded types (.sqlx), for which the
# migrations are applied to a database of their own. Needs the Postgres that `make up` starts.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
into=$(realpath -m "${1:-.}")
# shellcheck source=/dev/null
source .local/env

scratch="generate_$$"
base=${DATABASE_URL%/*}
psql -qX "$DATABASE_URL" -c "create database $scratch"
trap 'psql -qX "$DATABASE_URL" -c "drop database $scratch"' EXIT
for migration in migrations/*.sql; do
	psql -qX -v ON_ERROR_STOP=1 -f "$migration" "$base/$scratch" >/dev/null
done

mkdir -p "$into/.sqlx" "$into/crds" "$into/charts/image-factory/templates/crds"
rm -f "$into"/.sqlx/query-*.json
# A change of its own makes the compiler run the macros again.
touch src/lib.rs
SQLX_OFFLINE=false SQLX_OFFLINE_DIR="$into/.sqlx" DATABASE_URL="$base/$scratch" cargo check -q --lib
SQLX_OFFLINE=true SQLX_OFFLINE_DIR="$into/.sqlx" cargo run -q -- crds --dir "$into/crds"
