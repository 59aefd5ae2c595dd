#!/usr/bin/env bash
# Brings up what is missing of the local test cluster and installs Image Factory
# into it; with CLUSTER=external only the latter, into the caller's own cluster.
# Running it again is cheap and repairs what died. tests/cluster/README.md tells
# what runs where.
set -euo pipefail
umask 022
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd -P)
for part in settings process state packages compile network postgres registry git-server git-ssh pki control-plane node oci images operator; do
	# shellcheck source=/dev/null
	source "$here/lib/$part.sh"
done

case ${CLUSTER:-local} in
local) ;;
external)
	external_up
	exit
	;;
*) die "CLUSTER is local or external, not $CLUSTER" ;;
esac

if ((EUID != 0)); then
	mapfile -t missing < <(packages_missing)
	((${#missing[@]} == 0)) || say "these Debian packages are missing: ${missing[*]}"
	die "a Kubernetes node needs root: sudo make up (or CLUSTER=external make up, for a cluster that you have)"
fi

state_up
packages_up
network_up
postgres_up
registry_up
pki_up
git_server_up
example_repository_up
git_ssh_up
private_registries_up
compile_kube
tool "$KUBE_BIN/kubectl"
control_plane_up
write_env
compile_coredns
base_images_up
node_up
compile_builders
builder_images_up
compile_helm
tool "$HELM_BIN/helm"
operator_up
say "the cluster is up: . .local/env"
