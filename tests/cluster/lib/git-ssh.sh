# shellcheck shell=bash
# The same repositories by ssh, to be read only: ssh://root@NODE:3022/git/<name>.git
# and .../private/<name>.git, with the one key that the tests have. That key runs
# one command, and sshd listens on the node's own bridge.

GIT_SSH_PORT=3022
GIT_SSH_URL="ssh://root@$NODE_IP:$GIT_SSH_PORT"
GIT_SSH_KEY="$STATE/secret/git-ssh"
GIT_SSH_KNOWN_HOSTS="$STATE/etc/git-ssh-known-hosts"

ssh_key() { [[ -s $1 ]] || ssh-keygen -q -t ed25519 -N '' -C "$2" -f "$1"; }

git_ssh_up() {
	local host_key="$STATE/secret/git-ssh-host"
	ssh_key "$host_key" image-factory-test-host
	ssh_key "$GIT_SSH_KEY" image-factory-test
	install -d -m 0755 /run/sshd
	printf '[%s]:%s %s\n' "$NODE_IP" "$GIT_SSH_PORT" "$(cut -d' ' -f1,2 "$host_key.pub")" | put "$GIT_SSH_KNOWN_HOSTS"
	printf 'restrict %s\n' "$(cat "$GIT_SSH_KEY.pub")" | put "$STATE/etc/git-ssh-keys" 0600
	put "$STATE/etc/git-ssh-command" 0755 <<-SH
		#!/bin/sh
		# All that a key may do: fetch from one of our repositories.
		path=\${SSH_ORIGINAL_COMMAND#git-upload-pack \'/}
		path=\${path%\'}
		[ "\$SSH_ORIGINAL_COMMAND" = "git-upload-pack '/\$path'" ] || exit 1
		case \$path in
		*..* | *[!a-zA-Z0-9._/-]*) exit 1 ;;
		esac
		exec setpriv --reuid www-data --regid www-data --clear-groups git -c safe.directory='*' upload-pack "$STATE/git/\$path"
	SH
	put "$STATE/etc/sshd.conf" <<-CONF
		ListenAddress $NODE_IP:$GIT_SSH_PORT
		HostKey $host_key
		PidFile none
		AuthorizedKeysFile $STATE/etc/git-ssh-keys
		StrictModes no
		UsePAM no
		PermitRootLogin prohibit-password
		ForceCommand $STATE/etc/git-ssh-command
		AuthenticationMethods publickey
		AllowUsers root
		AcceptEnv GIT_PROTOCOL
		PermitTTY no
		DisableForwarding yes
		# Builds come in bursts from one address.
		MaxStartups 100
	CONF
	port_free git-ssh "$GIT_SSH_PORT"
	serve git-ssh "$(command -v sshd)" -D -e -f "$STATE/etc/sshd.conf"
	ready git-ssh 10 ssh-keyscan -T 2 -p "$GIT_SSH_PORT" "$NODE_IP"
}

git_ssh_down() { halt git-ssh; }
