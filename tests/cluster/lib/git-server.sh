# shellcheck shell=bash
# A Git server for the tests: http://NODE/git/<name>.git for everybody,
# http://NODE/private/<name>.git with user and password. A push to a repository
# that does not exist makes it, and is told to the address of hook.url in its
# configuration, signed with hook.secret as Gitea does. The same by https on two more ports: with a
# certificate of the cluster's authority, and with one that nobody has signed.

GIT_USER=builder
GIT_URL="http://$NODE_IP:$GIT_PORT"
GIT_TLS_URL="https://$NODE_IP:$GIT_TLS_PORT"
GIT_STRANGE_URL="https://$NODE_IP:$GIT_STRANGE_PORT"

git_password() {
	local file="$STATE/secret/git"
	[[ -s $file ]] || openssl rand -hex 12 | put "$file" 0600
	cat "$file"
}

# git_certificate NAME: where the server, which is not root, can read it.
git_certificate() { cat "$PKI/$1.key" "$PKI/$1.crt" | put "$STATE/etc/$1.pem" 0640 && chgrp www-data "$STATE/etc/$1.pem"; }

# After pki_up, whose authority signs one of the certificates.
git_server_up() {
	certificate git "/CN=git" "extendedKeyUsage=serverAuth\nsubjectAltName=IP:$NODE_IP"
	[[ -s $PKI/git-strange.crt ]] || openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 3650 -subj /CN=stranger \
		-addext "subjectAltName=IP:$NODE_IP" -keyout "$PKI/git-strange.key" -out "$PKI/git-strange.crt" 2>/dev/null
	git_certificate git
	git_certificate git-strange
	install -d -o www-data -g www-data -m 0755 "$STATE/git" "$STATE/git/git" "$STATE/git/private" "$STATE/git/.tmp"
	printf '%s:%s\n' "$GIT_USER" "$(git_password)" | put "$STATE/etc/git-users" 0640
	chgrp www-data "$STATE/etc/git-users"
	install -d -m 0755 "$STATE/etc/git-template" "$STATE/etc/git-template/hooks"
	put "$STATE/etc/git-template/hooks/post-receive" 0755 <<-'SH'
		#!/bin/sh
		# Tells of each ref that was pushed, where somebody wants to be told.
		url=$(git config hook.url) || exit 0
		secret=$(git config hook.secret)
		repository=$(pwd | sed 's|.*/\([^/]*/[^/]*\)\.git$|\1|')
		while read -r before after ref; do
			body=$(jq -cn --arg ref "$ref" --arg before "$before" --arg after "$after" --arg repository "$repository" \
				--arg name "$(git log -1 --format=%an "$after")" --arg email "$(git log -1 --format=%ae "$after")" \
				--arg message "$(git log -1 --format=%B "$after")" \
				'{id: $after, message: $message, author: {name: $name, email: $email}} as $head |
				{ref: $ref, before: $before, after: $after, head_commit: $head, repository: {full_name: $repository}}')
			signature=$(printf '%s' "$body" | openssl dgst -sha256 -hmac "$secret" | sed 's/.* //')
			curl -sS -m 60 --retry 20 --retry-delay 1 --retry-all-errors --fail-with-body -o /dev/null \
				-H 'Content-Type: application/json' -H 'X-Gitea-Event: push' -H "X-Gitea-Signature: $signature" \
				-H "X-Gitea-Delivery: $(cat /proc/sys/kernel/random/uuid)" --data-binary "$body" "$url"
		done
	SH
	put "$STATE/etc/git-backend" 0755 <<-'SH'
		#!/bin/sh
		# Runs git http-backend for the folder named by the URL's first part.
		root=$(dirname "$0")/../git$SCRIPT_NAME
		repo=${PATH_INFO#/}
		repo=${repo%%.git/*}.git
		export GIT_PROJECT_ROOT="$root" GIT_HTTP_EXPORT_ALL=1 HOME=/nonexistent
		export GIT_CONFIG_COUNT=4
		export GIT_CONFIG_KEY_0=http.receivepack GIT_CONFIG_VALUE_0=true
		export GIT_CONFIG_KEY_1=safe.directory GIT_CONFIG_VALUE_1='*'
		export GIT_CONFIG_KEY_2=uploadpack.allowAnySHA1InWant GIT_CONFIG_VALUE_2=true
		export GIT_CONFIG_KEY_3=uploadpack.allowFilter GIT_CONFIG_VALUE_3=true
		case $QUERY_STRING:$repo in
		service=git-receive-pack:*..*) ;;
		service=git-receive-pack:[a-zA-Z0-9]*) [ -d "$root/$repo" ] || git init -q --bare -b main --template="${0%/*}/git-template" "$root/$repo" ;;
		esac
		exec git http-backend
	SH
	put "$STATE/etc/lighttpd.conf" <<-CONF
		server.modules = ("mod_auth", "mod_authn_file", "mod_alias", "mod_cgi", "mod_setenv", "mod_openssl")
		server.document-root = "$STATE/git/.tmp"
		server.upload-dirs = ("$STATE/git/.tmp")
		server.bind = "$NODE_IP"
		server.port = $GIT_PORT
		\$SERVER["socket"] == "$NODE_IP:$GIT_TLS_PORT" {
		  ssl.engine = "enable"
		  ssl.pemfile = "$STATE/etc/git.pem"
		}
		\$SERVER["socket"] == "$NODE_IP:$GIT_STRANGE_PORT" {
		  ssl.engine = "enable"
		  ssl.pemfile = "$STATE/etc/git-strange.pem"
		}
		server.feature-flags = ("server.graceful-shutdown-timeout" => 2)
		setenv.set-environment = ("PATH" => "/usr/local/bin:/usr/bin:/bin")
		cgi.assign = ("git-backend" => "")
		alias.url = ("/git" => "$STATE/etc/git-backend", "/private" => "$STATE/etc/git-backend")
		auth.backend = "plain"
		auth.backend.plain.userfile = "$STATE/etc/git-users"
		\$HTTP["url"] =~ "^/private/" {
		  auth.require = ("" => ("method" => "basic", "realm" => "git", "require" => "valid-user"))
		}
	CONF
	port_free git-server "$GIT_PORT"
	serve git-server setpriv --reuid www-data --regid www-data --clear-groups lighttpd -D -f "$STATE/etc/lighttpd.conf"
	ready git-server 10 curl -sS -o /dev/null "$GIT_URL/"
	ready git-server 10 curl -sS -o /dev/null --cacert "$PKI/ca.crt" "$GIT_TLS_URL/"
}

# What examples/git.yaml builds: one commit, always the same for the same files.
example_repository_up() {
	local work url="$GIT_URL/git/greeting.git"
	local -a plain=(env GIT_CONFIG_GLOBAL=/dev/null GIT_CONFIG_NOSYSTEM=1 GIT_COMMITTER_DATE='2026-01-01T00:00:00Z' GIT_AUTHOR_DATE='2026-01-01T00:00:00Z'
		git -c user.name='Image Factory' -c user.email=examples@image-factory.invalid)
	work=$(mktemp -d)
	cp -R "$CLONE/examples/from-git/." "$work"
	"${plain[@]}" -C "$work" init -q -b main
	"${plain[@]}" -C "$work" add .
	"${plain[@]}" -C "$work" commit -qm "Greet from a Git server"
	if [[ $("${plain[@]}" ls-remote "$url" refs/tags/v1 2>/dev/null | cut -f1) != $("${plain[@]}" -C "$work" rev-parse HEAD) ]]; then
		say "pushing examples/from-git to $url"
		"${plain[@]}" -C "$work" push -qf "$url" HEAD:main HEAD:refs/tags/v1
	fi
	rm -rf "$work"
}

git_server_down() { halt git-server; }
