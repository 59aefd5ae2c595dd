# shellcheck shell=bash
# The Debian packages that the cluster is made of: installed where they are
# missing and we are root, else named. The services that some of them bring are
# not started by the installation; we run our own, beside any that already run.

# What each package is wanted for, seen by a file or command of it.
packages_missing() {
	local package probe
	while read -r package probe; do
		[[ -n $(compgen -G "$probe") ]] || command -v "$probe" >/dev/null || printf '%s\n' "$package"
	done <<-'LIST'
		apache2-utils htpasswd
		binutils strip
		buildah buildah
		busybox-static /usr/share/doc/busybox-static
		ca-certificates /etc/ssl/certs/ca-certificates.crt
		containerd containerd
		containernetworking-plugins /usr/lib/cni/ptp
		curl curl
		docker-registry docker-registry
		git git
		iproute2 ip
		iptables iptables
		jq jq
		lighttpd lighttpd
		lighttpd-mod-openssl /usr/lib/lighttpd/mod_openssl.so
		openssh-client ssh
		openssh-server sshd
		openssl openssl
		packer packer
		postgresql /usr/lib/postgresql/*/bin/postgres
		procps ps
		runc runc
		skopeo skopeo
		tar tar
		util-linux setpriv
	LIST
}

packages_up() {
	local missing policy=/usr/sbin/policy-rc.d ours=
	mapfile -t missing < <(packages_missing)
	((${#missing[@]})) || return 0
	if ((EUID != 0)) || ! command -v apt-get >/dev/null; then
		die "these Debian packages are missing: ${missing[*]}
  sudo apt-get install --no-install-recommends ${missing[*]}"
	fi
	say "installing ${missing[*]}"
	if [[ ! -e $policy ]]; then
		printf '#!/bin/sh\nexit 101\n' >$policy
		chmod 0755 $policy
		ours=yes
	fi
	if ! { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}"; } >"$STATE/log/packages.log" 2>&1; then
		[[ -z $ours ]] || rm -f $policy
		tail -n 10 "$STATE/log/packages.log" >&2
		die "failed to install packages: $STATE/log/packages.log"
	fi
	[[ -z $ours ]] || rm -f $policy
}
