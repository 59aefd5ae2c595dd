# shellcheck shell=bash
# What every part of the test cluster shares: where its folders are, which
# addresses and versions it uses, and how it talks to the person in front of it.
# Sourced by up.sh and down.sh, never run by itself.

shopt -s inherit_errexit

CLUSTER_DIR=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
CLONE=$(cd "$CLUSTER_DIR/../.." && pwd -P)
LOCAL="$CLONE/.local"

# Unix socket paths hold at most 107 bytes and the postgres user has to reach its
# data, so the state is not in the clone but in one short folder, a clone its own.
STATE=${IMAGE_FACTORY_STATE:-/var/tmp/image-factory-$(printf '%s' "$CLONE" | sha256sum | cut -c1-8)}
OWNER_FILE=/var/tmp/image-factory.owner
CACHE="${XDG_CACHE_HOME:-$HOME/.cache}/image-factory"

NODE_IP=10.245.0.1
NODE_BRIDGE=node0
POD_CIDR=10.244.0.0/24
SERVICE_CIDR=10.96.0.0/16
REGISTRY="$NODE_IP:5000"
POSTGRES_PORT=15432
GIT_PORT=3080
GIT_TLS_PORT=3443
GIT_STRANGE_PORT=3444
API_PORT=6443
OPERATOR_PORT=30080

KUBERNETES_VERSION=v1.36.3
HELM_VERSION=v3.22.0
COREDNS_VERSION=v1.15.0
BUILDKIT_VERSION=v0.34.2
BUILDX_VERSION=v0.38.2

ADMIN_KUBECONFIG="$STATE/admin.kubeconfig"
NAMESPACE=image-factory

export PATH="$PATH:/usr/local/sbin:/usr/sbin:/sbin:/usr/local/go/bin"

say() { printf '%s\n' "$*" >&2; }
die() {
	printf 'error: %s\n' "$*" >&2
	exit 1
}

# wait_for SECONDS WHAT COMMAND...: until the command succeeds.
wait_for() {
	local seconds=$1 what=$2 deadline
	shift 2
	deadline=$((SECONDS + seconds))
	until "$@" >/dev/null 2>&1; do
		((SECONDS < deadline)) || {
			say "$what: not ready after $seconds s"
			return 1
		}
		sleep 0.2
	done
}

# hash_of FILE...: one short hash over names and contents, the names seen from here.
hash_of() { sha256sum "$@" | sha256sum | cut -c1-12; }

# put FILE [MODE]: stdin into the file, which is touched only where it changes.
put() {
	local file=$1 mode=${2:-0644} new
	new=$(mktemp "$file.XXXXXX")
	cat >"$new"
	chmod "$mode" "$new"
	if [[ -f $file ]] && cmp -s "$new" "$file"; then
		rm -f "$new"
	else
		mv -f "$new" "$file"
	fi
}

# Every call of kubectl names the cluster of this clone; the user's own
# configuration is never looked at.
kube() { "$KUBE_BIN/kubectl" --kubeconfig "$ADMIN_KUBECONFIG" "$@"; }
