#!/usr/bin/env bash
# Measures a release build of the operator on the local cluster, with limits out of the way and a Postgres that
# survives a power loss; what `make up` has is put back at the end.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
cargo build --release --bin image-factory
target=$(cargo metadata --format-version 1 --no-deps | jq -r .target_directory)
cargo rustc -p image-factory-agent --bin image-factory-agent -- -C target-feature=+crt-static
POSTGRES_FSYNC=on IMAGE_FACTORY_BINARY="$target/release/image-factory" IMAGE_FACTORY_AGENT_BINARY="$target/debug/image-factory-agent" tests/cluster/up.sh
# shellcheck source=/dev/null
source .local/env
restore() {
	# Make the chart's values and the everyday binary count again.
	rm -f .local/state/installed
	tests/cluster/up.sh
}
trap restore EXIT
# Who makes the Pods, with the rights for it, and no limit on builds at once.
launch_mode() {
	helm -n image-factory upgrade image-factory charts/image-factory --reuse-values --set "builds.launchMode=$1" --wait >/dev/null
	kubectl -n image-factory set env deployment/image-factory IMAGE_FACTORY_WORKER_BUILDS=1000 IMAGE_FACTORY_TENANT_BUILDS=1000 >/dev/null
	kubectl -n image-factory rollout status deployment/image-factory --timeout=120s >/dev/null
}
launch_mode kubernetes
# River's client is in Go.
PATH="$PATH:/usr/local/go/bin"
cargo bench --bench operator
echo "the same, launchMode operator:"
launch_mode operator
cargo bench --bench operator -- launch
launch_mode kubernetes
cargo bench --bench methods
cargo bench --bench claims
cargo bench --bench rows
cargo bench --bench live_logs
cargo bench --bench many_logs
cargo bench --bench webhooks
