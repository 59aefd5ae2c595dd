# shellcheck shell=bash
# Images from plain folders: a layer is a folder packed so that equal content
# gives equal bytes, an image a list of layers with a configuration, pushed by
# skopeo, which sends only the layers that the registry does not have.

OCI="$STATE/images"

# layer NAME FOLDER: packs the folder unless the layer of that name is there.
# Everything belongs to root but what is below home/, which belongs to 65532.
layer() {
	local name=$1 folder=$2 dir="$OCI/layers/$1"
	[[ ! -s $dir/digest ]] || return 0
	mkdir -p "$dir"
	{
		tar -C "$folder" --sort=name --mtime=@0 --numeric-owner --owner=0 --group=0 --exclude=./home/?* -cf "$dir/a.tar" .
		if [[ -d $folder/home ]] && [[ -n $(ls -A "$folder/home") ]]; then
			(cd "$folder" && tar --sort=name --mtime=@0 --numeric-owner --owner=65532 --group=65532 -rf "$dir/a.tar" ./home/*)
		fi
	}
	sha256sum "$dir/a.tar" | cut -d' ' -f1 >"$dir/diff"
	gzip -n -1 <"$dir/a.tar" >"$dir/blob"
	rm "$dir/a.tar"
	stat -c %s "$dir/blob" >"$dir/size"
	sha256sum "$dir/blob" | cut -d' ' -f1 >"$dir/digest"
}

layer_known() { [[ -s $OCI/layers/$1/digest ]]; }

# pushed REPOSITORY TAG: whether the registry has what we last pushed under it.
pushed() {
	local have
	have=$(curl -fsS -o /dev/null -D - -H 'Accept: application/vnd.oci.image.manifest.v1+json' --head "http://$REGISTRY/v2/$1/manifests/$2" 2>/dev/null |
		tr -d '\r' | awk 'tolower($1) == "docker-content-digest:" {print $2}') || return 1
	[[ -n $have && $have == "$(cat "$OCI/pushed/$1:$2" 2>/dev/null)" ]]
}

# push REPOSITORY TAG CONFIG LAYER...: CONFIG is the JSON object `config` of an image.
push() {
	local repository=$1 tag=$2 config=$3 work name digest size file
	shift 3
	work=$(mktemp -d "$OCI/.push.XXXXXX")
	mkdir -p "$work/blobs/sha256" "$(dirname "$OCI/pushed/$repository")"
	printf '{"imageLayoutVersion": "1.0.0"}' >"$work/oci-layout"
	for name in "$@"; do
		ln "$OCI/layers/$name/blob" "$work/blobs/sha256/$(cat "$OCI/layers/$name/digest")"
		jq -n --arg name "$name" --arg digest "sha256:$(cat "$OCI/layers/$name/digest")" --arg diff "sha256:$(cat "$OCI/layers/$name/diff")" --argjson size "$(cat "$OCI/layers/$name/size")" \
			'{$name, $digest, $diff, $size}'
	done | jq -s . >"$work/layers.json"
	jq -c --argjson config "$config" '{created: "1970-01-01T00:00:00Z", architecture: "amd64", os: "linux", $config,
		rootfs: {type: "layers", diff_ids: map(.diff)},
		history: map({created: "1970-01-01T00:00:00Z", created_by: ("COPY " + .name + " /")})}' "$work/layers.json" >"$work/config.json"
	jq -c --arg digest "sha256:$(sha256sum "$work/config.json" | cut -d' ' -f1)" --argjson size "$(stat -c %s "$work/config.json")" \
		'{schemaVersion: 2, mediaType: "application/vnd.oci.image.manifest.v1+json",
		config: {mediaType: "application/vnd.oci.image.config.v1+json", $digest, $size},
		layers: map({mediaType: "application/vnd.oci.image.layer.v1.tar+gzip", digest, size})}' "$work/layers.json" >"$work/manifest.json"
	for file in config manifest; do
		digest=$(sha256sum "$work/$file.json" | cut -d' ' -f1)
		size=$(stat -c %s "$work/$file.json")
		mv "$work/$file.json" "$work/blobs/sha256/$digest"
	done
	jq -nc --arg digest "sha256:$digest" --argjson size "$size" --arg tag "$tag" '{schemaVersion: 2, manifests: [{mediaType: "application/vnd.oci.image.manifest.v1+json", $digest, $size, annotations: {"org.opencontainers.image.ref.name": $tag}}]}' >"$work/index.json"
	say "pushing $REGISTRY/$repository:$tag"
	skopeo copy -q --dest-tls-verify=false --insecure-policy "oci:$work:$tag" "docker://$REGISTRY/$repository:$tag" >"$LOGS/push.log" 2>&1 || {
		cat "$LOGS/push.log" >&2
		die "failed to push $repository:$tag"
	}
	# The node keeps what it has pulled under a tag: it must not outlive the tag's content.
	if [[ -f $OCI/pushed/$repository:$tag ]] && alive containerd >/dev/null; then
		ctr -a "$CONTAINERD_SOCKET" -n k8s.io images rm "$REGISTRY/$repository:$tag" >/dev/null 2>&1 || true
	fi
	printf 'sha256:%s' "$digest" >"$OCI/pushed/$repository:$tag"
	rm -rf "$work"
}
