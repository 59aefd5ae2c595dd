# shellcheck shell=bash
# The state folder, who owns the machine's fixed addresses, and the lock that keeps
# two `make up` of one clone apart. What others may rely on is in .local: `env`, to
# be sourced, and `state`, a link to the folder.

state_up() {
	mkdir -p "$STATE" "$RUN" "$LOGS" "$STATE/etc"
	chmod 0755 "$STATE" "$RUN" "$LOGS" "$STATE/etc"
	install -d -m 0700 "$STATE/secret"
	mkdir -p "$LOCAL"
	ln -sfn "$STATE" "$LOCAL/state"
	lock
	own
}

lock() {
	exec 9>"$STATE/lock"
	if ! flock -n 9; then
		say "another make up or down of this clone is at work: waiting for it"
		flock 9
	fi
}

# The addresses and ports are the same for every clone: one cluster at a time.
# Sets OTHER_CLONE and OTHER_STATE if the cluster of another clone runs.
other_owner() {
	local file
	[[ -s $OWNER_FILE ]] || return 1
	{ read -r OTHER_STATE && read -r OTHER_CLONE; } <"$OWNER_FILE" || return 1
	[[ $OTHER_STATE != "$STATE" ]] || return 1
	for file in "$OTHER_STATE"/run/*.pid; do
		if alive_at "$file" >/dev/null; then return 0; fi
	done
	return 1
}

own() {
	if other_owner; then
		die "the cluster of $OTHER_CLONE runs on this machine and has the ports: \`make down\` there first (its state: $OTHER_STATE)"
	fi
	printf '%s\n%s\n' "$STATE" "$CLONE" | put "$OWNER_FILE"
}

disown_machine() {
	if [[ -s $OWNER_FILE && $(head -1 "$OWNER_FILE") == "$STATE" ]]; then rm -f "$OWNER_FILE"; fi
}

write_env() {
	put "$LOCAL/env" 0600 <<-ENV
		export KUBECONFIG=$ADMIN_KUBECONFIG
		export DATABASE_URL=$(database_url 127.0.0.1)
		export REGISTRY=$REGISTRY REGISTRY_TLS=$REGISTRY_TLS
		export REGISTRY_PRIVATE=$REGISTRY_PRIVATE REGISTRY_PRIVATE_USER=$REGISTRY_PRIVATE_USER REGISTRY_PRIVATE_PASSWORD=$(registry_password)
		export GIT_URL=$GIT_URL GIT_TLS_URL=$GIT_TLS_URL GIT_STRANGE_URL=$GIT_STRANGE_URL GIT_ROOT=$STATE/git GIT_USER=$GIT_USER GIT_PASSWORD=$(git_password)
		export GIT_SSH_URL=$GIT_SSH_URL GIT_SSH_KEY=$GIT_SSH_KEY GIT_SSH_KNOWN_HOSTS=$GIT_SSH_KNOWN_HOSTS
		export OPERATOR_URL=http://$NODE_IP:$OPERATOR_PORT
		export AUDIT_LOG=$LOGS/audit.log POD_LOGS=$STATE/pod-logs
		export PATH="$STATE/bin:\$PATH"
	ENV
}

# tool FILE: puts a link to it on the PATH that .local/env gives.
tool() {
	mkdir -p "$STATE/bin"
	ln -sfn "$1" "$STATE/bin/${1##*/}"
}
