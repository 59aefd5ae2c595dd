# shellcheck shell=bash
# The images that the cluster needs and no registry has to give: made from the
# host's own files and from what we compiled. Layers are named after a hash of
# their content, so what did not change is neither packed nor pushed again.

IMAGE_PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin

# skeleton FOLDER: the folders that any program expects, on a merged /usr.
skeleton() {
	local dir
	mkdir -p "$1"/{usr/{bin,sbin,lib,lib64,local/bin},etc,root,var/{tmp,lib},run,proc,sys,dev}
	mkdir -p "$1/tmp"
	chmod 1777 "$1/tmp" "$1/var/tmp"
	for dir in bin sbin lib lib64; do ln -sfn "usr/$dir" "$1/$dir"; done
	printf 'root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/nonexistent:/bin/false\nnonroot:x:65532:65532:nonroot:/home/nonroot:/bin/false\n' >"$1/etc/passwd"
	printf 'root:x:0:\nnogroup:x:65534:\nnonroot:x:65532:\n' >"$1/etc/group"
	printf 'passwd: files\ngroup: files\nhosts: files dns\n' >"$1/etc/nsswitch.conf"
	chmod 0644 "$1"/etc/{passwd,group,nsswitch.conf}
}

certificates() { install -D -m 0644 /etc/ssl/certs/ca-certificates.crt "$1/etc/ssl/certs/ca-certificates.crt"; }

# libraries FOLDER FILE...: the shared libraries that programs need, with their loader.
libraries() {
	local folder=$1 library
	shift
	{ ldd "$@" 2>/dev/null || true; } | grep -oE '(=> )?/[^ :]+ \(0x' | grep -oE '/[^ ]+' | sort -u | while read -r library; do
		[[ -e $folder$library ]] || install -D -m 0755 "$(readlink -f "$library")" "$folder$library"
	done
}

# with_libraries FOLDER PROGRAM [NAME]: into /usr/bin, with what it needs.
with_libraries() {
	install -D -m 0755 "$2" "$1/usr/bin/${3:-${2##*/}}"
	libraries "$1" "$2"
}

busybox_links() {
	local name
	install -m 0755 "$(command -v busybox)" "$1/usr/bin/busybox"
	"$1/usr/bin/busybox" --list | while read -r name; do
		[[ -e $1/usr/bin/$name ]] || ln -s busybox "$1/usr/bin/$name"
	done
}

scratch() {
	mkdir -p "$OCI/layers" "$OCI/pushed"
	mktemp -d "$OCI/.rootfs.XXXXXX"
}

# What of the host's files an image is made of, in one hash with the recipe's own text.
recipe() {
	local name=$1
	shift
	{
		declare -f "$name" skeleton libraries with_libraries busybox_links fill_busybox certificates layer buildpack cnb_user
		sha256sum "$@"
	} | sha256sum | cut -c1-12
}

fill_busybox() {
	skeleton "$1"
	rm "$1/sbin"
	rmdir "$1/usr/sbin"
	ln -s bin "$1/usr/sbin"
	ln -s usr/bin "$1/sbin"
	busybox_links "$1"
	mkdir -p "$1/home"
}

fill_buildkit() {
	skeleton "$1"
	certificates "$1"
	install -m 0755 "$BUILDKIT_BIN/buildkitd" "$BUILDKIT_BIN/buildctl" "$1/usr/bin"
	with_libraries "$1" "$(command -v runc)" buildkit-runc
	mkdir -p "$1/var/lib/buildkit" "$1/run/buildkit" "$1/etc/buildkit"
}

fill_buildx() {
	skeleton "$1"
	certificates "$1"
	# /buildx is where the published image docker/buildx-bin has it.
	install -m 0755 "$BUILDX_BIN/buildx" "$1/buildx"
	ln -s /buildx "$1/usr/local/bin/buildx"
}

fill_buildah() {
	skeleton "$1"
	certificates "$1"
	with_libraries "$1" "$(command -v buildah)"
	mkdir -p "$1/etc/containers" "$1/var/lib/containers" "$1/run/containers"
	printf '{"default": [{"type": "insecureAcceptAnything"}]}\n' >"$1/etc/containers/policy.json"
	printf 'unqualified-search-registries = ["docker.io"]\nshort-name-mode = "permissive"\n' >"$1/etc/containers/registries.conf"
	printf '[storage]\ndriver = "vfs"\nrunroot = "/run/containers/storage"\ngraphroot = "/var/lib/containers/storage"\n' >"$1/etc/containers/storage.conf"
}

# With a shell for what its provisioners run.
fill_packer() {
	fill_busybox "$1"
	certificates "$1"
	with_libraries "$1" "$(command -v packer)"
}

fill_git() {
	skeleton "$1"
	certificates "$1"
	with_libraries "$1" "$(command -v git)"
	with_libraries "$1" "$(command -v ssh)"
	cp -a "$(git --exec-path)/." "$(mkdir -p "$1$(git --exec-path)" && echo "$1$(git --exec-path)")"
	find "$1$(git --exec-path)" -type f -size +1M -samefile "$1$(git --exec-path)/git" -not -name git -exec ln -sfn git {} \;
	libraries "$1" "$(git --exec-path)/git-remote-http" "$(git --exec-path)/git-http-fetch"
	mkdir -p "$1/usr/share/git-core/templates"
	# What a C or Rust program wants of the C library beyond what ldd tells.
	local library
	for library in libnss_dns.so.2 libnss_files.so.2 libgcc_s.so.1 libm.so.6 libpthread.so.0 libdl.so.2 librt.so.1 libresolv.so.2; do
		library="/lib/$(uname -m)-linux-gnu/$library"
		[[ ! -e $library || -e $1$library ]] || install -D -m 0755 "$(readlink -f "$library")" "$1$library"
	done
	# git submodule is a shell script.
	busybox_links "$1"
	mkdir -p "$1/home/nonroot"
}

# image REPOSITORY TAG CONFIG FILL FILE...: FILL makes its one layer from FILEs.
image() {
	local repository=$1 tag=$2 config=$3 fill=$4 name folder
	shift 4
	name="${fill#fill_}-$(recipe "$fill" "$@")"
	one_layer "$name" "$fill"
	if [[ $(cat "$OCI/pushed/$repository:$tag.from" 2>/dev/null) == "$name $config" ]] && pushed "$repository" "$tag"; then return 0; fi
	push "$repository" "$tag" "$config" "$name"
	printf '%s' "$name $config" >"$OCI/pushed/$repository:$tag.from"
}

# one_layer NAME FILL
one_layer() {
	local folder
	if layer_known "$1"; then return 0; fi
	folder=$(scratch)
	chmod 0755 "$folder"
	"$2" "$folder"
	layer "$1" "$folder"
	rm -rf "$folder"
}

buildah_version() { buildah --version | awk '{print $3}'; }

packer_version() { CHECKPOINT_DISABLE=1 packer version | awk 'NR == 1 {print $2}'; }

base_images_up() {
	mkdir -p "$OCI/layers" "$OCI/pushed"
	# What an interrupted run left half made.
	find "$OCI" -mindepth 1 -maxdepth 1 \( -name '.rootfs.*' -o -name '.push.*' \) -exec rm -rf {} +
	image pause 2 '{"Entrypoint": ["/bin/sleep", "2147483647"], "User": "65534"}' fill_busybox "$(command -v busybox)"
	image busybox 1 "{\"Cmd\": [\"sh\"], \"Env\": [\"PATH=$IMAGE_PATH\"]}" fill_busybox "$(command -v busybox)"
}

# What BuildKit runs over an image for its SBOM, by its protocol, with a list of one package:
# https://github.com/moby/buildkit/blob/v0.28.1/docs/attestations/sbom-protocol.md.
fill_sbom_generator() {
	fill_busybox "$1"
	cat >"$1/usr/local/bin/generate" <<-'SH'
		#!/bin/sh
		cat >"$BUILDKIT_SCAN_DESTINATION/packages.spdx.json" <<-JSON
		{"_type": "https://in-toto.io/Statement/v0.1", "predicateType": "https://spdx.dev/Document",
		 "predicate": {"spdxVersion": "SPDX-2.3", "SPDXID": "SPDXRef-DOCUMENT", "name": "$(ls "$BUILDKIT_SCAN_SOURCE" | head -1)",
		  "packages": [{"SPDXID": "SPDXRef-busybox", "name": "busybox"}]}}
		JSON
	SH
	chmod 0755 "$1/usr/local/bin/generate"
}

builder_images_up() {
	image buildkit "${BUILDKIT_VERSION#v}" "{\"Entrypoint\": [\"buildkitd\"], \"Env\": [\"PATH=$IMAGE_PATH\"]}" \
		fill_buildkit "$BUILDKIT_BIN/buildkitd" "$BUILDKIT_BIN/buildctl" "$(command -v runc)"
	image buildx "${BUILDX_VERSION#v}" "{\"Entrypoint\": [\"buildx\"], \"Env\": [\"PATH=$IMAGE_PATH\", \"HOME=/tmp\"]}" \
		fill_buildx "$BUILDX_BIN/buildx"
	image buildah "$(buildah_version)" "{\"Entrypoint\": [\"buildah\"], \"Env\": [\"PATH=$IMAGE_PATH\"]}" \
		fill_buildah "$(command -v buildah)"
	image sbom-generator 1 "{\"Entrypoint\": [\"/usr/local/bin/generate\"], \"Env\": [\"PATH=$IMAGE_PATH\"]}" fill_sbom_generator "$(command -v busybox)"
	image packer "$(packer_version)" "{\"Entrypoint\": [\"packer\"], \"Env\": [\"PATH=$IMAGE_PATH\"]}" \
		fill_packer "$(command -v busybox)" "$(command -v packer)"
	given_images_up
}

fill_kaniko() {
	skeleton "$1"
	install -D -m 0755 "$KANIKO_EXECUTOR" "$1/kaniko/executor"
	install -D -m 0644 /etc/ssl/certs/ca-certificates.crt "$1/kaniko/ssl/certs/ca-certificates.crt"
	mkdir -p "$1/kaniko/.docker" "$1/workspace"
	chmod 0777 "$1/kaniko" "$1/workspace"
}

# buildpack FOLDER NAME VERSION: one of tests/cluster/buildpacks, where a lifecycle looks for it.
buildpack() {
	mkdir -p "$1/cnb/buildpacks/orchard_$2"
	cp -R "$CLONE/tests/cluster/buildpacks/$2" "$1/cnb/buildpacks/orchard_$2/$3"
	chmod -R u=rwX,go=rX "$1/cnb"
}

cnb_user() {
	printf 'cnb:x:1001:1000:cnb:/home/cnb:/bin/sh\n' >>"$1/etc/passwd"
	printf 'cnb:x:1000:\n' >>"$1/etc/group"
}

# A builder: the lifecycle that was given, a buildpack, the order and the run image.
fill_cnb_builder() {
	local phase
	fill_busybox "$1"
	certificates "$1"
	cnb_user "$1"
	mkdir -p "$1/cnb/lifecycle" "$1/workspace" "$1/layers" "$1/platform"
	cp -a "$CNB_LIFECYCLE"/. "$1/cnb/lifecycle/"
	# The phases are one program by their names.
	for phase in analyzer detector restorer builder exporter; do
		[[ -e $1/cnb/lifecycle/$phase ]] || ln -s lifecycle "$1/cnb/lifecycle/$phase"
	done
	buildpack "$1" press 1.0.0
	printf '[[order]]\n[[order.group]]\nid = "orchard/press"\nversion = "1.0.0"\n' >"$1/cnb/order.toml"
	printf '[[images]]\nimage = "%s/cnb/run:1"\n' "$REGISTRY" >"$1/cnb/run.toml"
	printf '[run-image]\nimage = "%s/cnb/run:1"\n' "$REGISTRY" >"$1/cnb/stack.toml"
}

fill_cnb_run() {
	fill_busybox "$1"
	cnb_user "$1"
}

# As `pack buildpack package` makes it: nothing but the buildpack.
fill_cnb_bottle() { buildpack "$1" bottle 2.1.0; }

cnb_images_up() {
	local tag labels
	local -a press=("$CLONE"/tests/cluster/buildpacks/press/{buildpack.toml,bin/detect,bin/build})
	local -a bottle=("$CLONE"/tests/cluster/buildpacks/bottle/{buildpack.toml,bin/detect,bin/build})
	labels='"Labels": {"io.buildpacks.stack.id": "orchard", "io.buildpacks.base.distro.name": "orchard", "io.buildpacks.base.distro.version": "1"}'
	tag="local-$(cd "$CNB_LIFECYCLE" && hash_of ./*)"
	image cnb/run 1 "{\"User\": \"1001:1000\", \"Env\": [\"PATH=$IMAGE_PATH\"], $labels}" fill_cnb_run "$(command -v busybox)"
	image cnb/bottle 2.1.0 '{}' fill_cnb_bottle "${bottle[@]}"
	image cnb/builder "$tag" "{\"User\": \"1001:1000\", \"WorkingDir\": \"/workspace\", \"Env\": [\"PATH=/cnb/lifecycle:$IMAGE_PATH\", \"CNB_USER_ID=1001\", \"CNB_GROUP_ID=1000\", \"CNB_STACK_ID=orchard\", \"HOME=/tmp\"], $labels}" \
		fill_cnb_builder "$CNB_LIFECYCLE"/* "${press[@]}"
	printf '%s' "$REGISTRY/cnb/builder:$tag" >"$OCI/given-lifecycle"
}

# kaniko and the buildpacks lifecycle come from no package: only where they are
# given. An image made once is used until another is given.
given_images_up() {
	local tag
	if [[ -n ${KANIKO_EXECUTOR:-} ]]; then
		[[ -f $KANIKO_EXECUTOR ]] || die "KANIKO_EXECUTOR=$KANIKO_EXECUTOR is not a file"
		tag="local-$(sha256sum "$KANIKO_EXECUTOR" | cut -c1-12)"
		image kaniko "$tag" '{"Entrypoint": ["/kaniko/executor"], "WorkingDir": "/workspace", "Env": ["PATH=/usr/local/bin:/kaniko", "HOME=/root", "USER=root", "DOCKER_CONFIG=/kaniko/.docker/", "SSL_CERT_DIR=/kaniko/ssl/certs"]}' \
			fill_kaniko "$KANIKO_EXECUTOR"
		printf '%s' "$REGISTRY/kaniko:$tag" >"$OCI/given-kaniko"
	fi
	if [[ -n ${CNB_LIFECYCLE:-} ]]; then
		[[ -d $CNB_LIFECYCLE ]] || die "CNB_LIFECYCLE=$CNB_LIFECYCLE is not a folder"
		cnb_images_up
	fi
}

# given NAME FORMAT: a line about the image that was given, if one was.
given() {
	local file="$OCI/given-$1"
	[[ -s $file ]] || return 0
	# shellcheck disable=SC2059 # the format is the caller's
	printf "$2" "$(cat "$file")"
}
