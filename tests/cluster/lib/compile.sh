# shellcheck shell=bash
# Compiles what the cluster needs and no Debian package has, from Go modules with
# pinned checksums. Each binary lives in the user's cache under a hash of what it
# is made from, so a second clone on the machine compiles nothing.

KUBE_NAMES="kube-apiserver kube-controller-manager kube-scheduler kubelet kube-proxy kubectl etcd remove-sandboxes"

need_go() {
	local have
	have=$(GOTOOLCHAIN=local go env GOVERSION 2>/dev/null) || die "compiling the cluster needs Go 1.26.8 or newer on the PATH (https://go.dev/dl)"
	[[ $(printf '%s\n' go1.26.8 "$have" | sort -V | head -1) == go1.26.8 ]] || die "compiling the cluster needs Go 1.26.8 or newer; this is $have"
}

# cached NAME VERSION DIR LDFLAGS: the folder in the cache that belongs to sources.
cached() {
	local name=$1 version=$2 dir=$3 ldflags=$4
	printf '%s/%s-%s' "$CACHE" "$name" "$({
		echo "$version $ldflags $(uname -m)"
		cd "$dir"
		sha256sum go.mod go.sum
		if [[ -d cmd/$name ]]; then sha256sum "cmd/$name"/*.go; fi
	} | sha256sum | cut -c1-12)"
}

# compile NAME VERSION DIR LDFLAGS PACKAGE...: prints the folder of the binaries,
# each named as the last part of its package.
compile() {
	local name=$1 version=$2 dir=$3 ldflags=$4 target package made
	shift 4
	target=$(cached "$name" "$version" "$dir" "$ldflags")
	if [[ ! -d $target ]]; then
		need_go
		mkdir -p "$CACHE"
		# Two clones at once: the second waits, then finds it done.
		exec 8>"$CACHE/$name.lock"
		flock 8
		if [[ ! -d $target ]]; then
			say "compiling $name $version: minutes on the first run, then kept in $CACHE"
			rm -rf "$CACHE/.$name".*
			made=$(mktemp -d "$CACHE/.$name.XXXXXX")
			for package in "$@"; do
				(cd "$dir" && CGO_ENABLED=0 GOFLAGS=-mod=readonly nice -n 5 go build -trimpath -buildvcs=false -ldflags "-s -w $ldflags" -o "$made/${package##*/}" "$package") >&2 8>&- ||
					die "failed to compile $package"
			done
			chmod 0755 "$made"
			mv -T "$made" "$target"
		fi
		exec 8>&-
	fi
	printf '%s' "$target"
}

compile_kube() {
	local name
	KUBE_BIN=$(compile kube "$KUBERNETES_VERSION" "$CLUSTER_DIR" "-X k8s.io/component-base/version.gitVersion=$KUBERNETES_VERSION" ./cmd/kube)
	for name in $KUBE_NAMES; do
		[[ -e $KUBE_BIN/$name ]] || ln -sfn kube "$KUBE_BIN/$name"
	done
}

compile_coredns() { COREDNS_BIN=$(compile coredns "$COREDNS_VERSION" "$CLUSTER_DIR/tools/coredns" "" github.com/coredns/coredns); }

# helm template takes the Kubernetes version it assumes from how it was linked.
compile_helm() {
	local minor=${KUBERNETES_VERSION#v1.}
	HELM_BIN=$(compile helm "$HELM_VERSION" "$CLUSTER_DIR/tools/helm" "-X helm.sh/helm/v3/internal/version.version=$HELM_VERSION -X helm.sh/helm/v3/pkg/chartutil.k8sVersionMajor=1 -X helm.sh/helm/v3/pkg/chartutil.k8sVersionMinor=${minor%%.*}" helm.sh/helm/v3/cmd/helm)
}

compile_builders() {
	BUILDKIT_BIN=$(compile buildkit "$BUILDKIT_VERSION" "$CLUSTER_DIR/tools/buildkit" "-X github.com/moby/buildkit/version.Version=$BUILDKIT_VERSION" \
		github.com/moby/buildkit/cmd/buildkitd github.com/moby/buildkit/cmd/buildctl)
	BUILDX_BIN=$(compile buildx "$BUILDX_VERSION" "$CLUSTER_DIR/tools/buildx" "-X github.com/docker/buildx/version.Version=$BUILDX_VERSION" github.com/docker/buildx/cmd/buildx)
}
