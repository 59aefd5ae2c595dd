#!/usr/bin/env bash
# Fails where what is generated differs from what is checked in. The remedy: make generate.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
fresh=$(mktemp -d)
trap 'rm -rf "$fresh"' EXIT
scripts/generate.sh "$fresh"
for generated in .sqlx crds charts/image-factory/templates/crds; do
	if ! diff -ru "$generated" "$fresh/$generated"; then
		echo "$generated is not what the code generates: run make generate and commit the result" >&2
		exit 1
	fi
done
echo "what is generated is up to date"
