#!/usr/bin/env bash
# Formatting and lints. Warnings are errors in CI only, so that work in progress compiles.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

cargo fmt --all --check
strict=()
if [[ ${CI:-} ]]; then strict=(-D warnings); fi
cargo clippy --workspace --all-targets -- "${strict[@]}"
cargo clippy --features failpoints --bin image-factory --test crash -- "${strict[@]}"

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
