#!/usr/bin/env bash
# Stops what `make up` of this clone started, and nothing else: processes by pid
# and start time, containers through our own containerd, mounts below our state,
# our bridge. Data and caches stay; WIPE=1 removes the state folder too.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd -P)
for part in settings process state network postgres registry git-server git-ssh pki control-plane node; do
	# shellcheck source=/dev/null
	source "$here/lib/$part.sh"
done

if [[ ! -d $STATE ]]; then
	say "nothing to stop: there is no $STATE"
	exit 0
fi
((EUID == 0)) || die "make up ran as root, so make down has to: sudo make down"
lock
KUBE_BIN=$(dirname "$(readlink -f "$STATE/bin/kubectl" 2>/dev/null || echo /nonexistent/kubectl)")
say "stopping the cluster"
node_down
control_plane_down
git_server_down
git_ssh_down
registry_down
postgres_down
# What the whole machine shares is left to the clone that runs now, if one does.
if ! other_owner; then
	remove_leftovers
	network_down
fi
disown_machine
rm -f "$LOCAL/env"
if [[ -n ${WIPE:-} ]]; then
	say "removing $STATE"
	rm -rf --one-file-system "${STATE:?}" "$LOCAL/state" "$LOCAL/values.yaml"
fi
