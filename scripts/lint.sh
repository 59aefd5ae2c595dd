#!/usr/bin/env bash
# Formatting and lints. Warnings are errors in CI only, so that work in progress compiles.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

cargo fmt --all --check
if [[ ${CI:-} ]]; then
	cargo clippy --workspace --all-targets -- -D warnings
else
	cargo clippy --workspace --all-targets
fi

mapfile -t shell < <(git ls-files '*.sh' .ci/run)
for tool in shellcheck cargo-deny; do
	if ! command -v "$tool" >/dev/null; then
		echo "lint: $tool is not installed: its checks are skipped"
		continue
	fi
	case $tool in
	shellcheck) shellcheck -x "${shell[@]}" ;;
	cargo-deny) cargo deny --offline check bans licenses sources ;;
	esac
done
