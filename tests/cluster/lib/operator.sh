# shellcheck shell=bash
# Image Factory itself: the binaries from this clone, an image of them, and the
# chart. Nothing is done where nothing changed and the operator is available.

RELEASE=image-factory
DATABASE_SECRET=image-factory-database
VALUES="$LOCAL/values.yaml"
CHART="$CLONE/charts/image-factory"

# Sets OPERATOR and AGENT. The agent is static: it runs in every builder's image.
operator_binaries() {
	local target
	OPERATOR=${IMAGE_FACTORY_BINARY:-} AGENT=${IMAGE_FACTORY_AGENT_BINARY:-}
	[[ -z $OPERATOR || -z $AGENT ]] || return 0
	command -v cargo >/dev/null || PATH="$PATH:$HOME/.cargo/bin"
	command -v cargo >/dev/null || die "building the operator needs cargo (https://rustup.rs)"
	if [[ -d $CLONE/.sqlx ]]; then export SQLX_OFFLINE=true; fi
	cd "$CLONE"
	cargo build -p image-factory >&2 9>&- || die "the operator does not compile"
	cargo rustc -p image-factory-agent --bin image-factory-agent -- -C target-feature=+crt-static >&2 9>&- || die "the agent does not compile"
	target=$(cargo metadata --format-version 1 --no-deps | jq -r .target_directory)
	OPERATOR="$target/debug/image-factory" AGENT="$target/debug/image-factory-agent"
}

fill_operator() {
	mkdir -p "$1"/usr/{lib,lib64,local/bin}
	ln -s usr/lib "$1/lib"
	ln -s usr/lib64 "$1/lib64"
	strip -o "$1/usr/local/bin/image-factory" "$OPERATOR"
	strip -o "$1/usr/local/bin/image-factory-agent" "$AGENT"
	chmod 0755 "$1"/usr/local/bin/*
	libraries "$1" "$OPERATOR"
}

# Two layers: Git and its libraries, which stay, and the binaries, which change.
operator_image_up() {
	local git_layer binaries_layer
	git_layer="git-$(recipe fill_git "$(command -v git)" "$(command -v ssh)" /etc/ssl/certs/ca-certificates.crt)"
	binaries_layer="operator-$(recipe fill_operator "$OPERATOR" "$AGENT")"
	# Every build of the operator is a layer; a few are worth keeping.
	find "$OCI/layers" -mindepth 1 -maxdepth 1 -name 'operator-*' -printf '%T@ %p\n' | sort -rn | tail -n +4 | cut -d' ' -f2- | xargs -r rm -rf
	one_layer "$git_layer" fill_git
	one_layer "$binaries_layer" fill_operator
	OPERATOR_TAG=$(printf '%s %s' "$git_layer" "$binaries_layer" | sha256sum | cut -c1-12)
	pushed image-factory "$OPERATOR_TAG" ||
		push image-factory "$OPERATOR_TAG" "{\"User\": \"65532:65532\", \"Entrypoint\": [\"/usr/local/bin/image-factory\"], \"Env\": [\"PATH=$IMAGE_PATH\", \"HOME=/home/nonroot\"]}" "$git_layer" "$binaries_layer"
}

# chart_has LINE: whether the chart knows a value; its schema refuses unknown ones.
chart_has() { grep -q "^$1" "$CHART/values.yaml"; }

values() {
	{
		cat <<-YAML
			# Written by make up.
			image: {repository: "$REGISTRY/image-factory", tag: "$OPERATOR_TAG"}
			database: {existingSecret: $DATABASE_SECRET}
			insecureRegistries: ["$REGISTRY"]
			registryMirrors: {orchard.invalid: ["$REGISTRY"]}
			sources: {insecureProtocols: [http], certificateAuthorities: "$(awk '{printf "%s\\n", $0}' "$PKI/ca.crt")"}
			builders:
			  buildx: {image: "$REGISTRY/buildx:${BUILDX_VERSION#v}"}
			  buildkit: {image: "$REGISTRY/buildkit:${BUILDKIT_VERSION#v}"}
			  sbomGenerator: {image: "$REGISTRY/sbom-generator:1"}
			  container: {image: "$REGISTRY/buildah:$(buildah_version)"}
			  packer: {image: "$REGISTRY/packer:$(packer_version)", plugins: [example.com/orchard]}
		YAML
		# Empty where none was given: the operator then refuses the method by name.
		printf '  kaniko: {image: "%s"}\n' "$(given kaniko %s)"
		printf '  paketo: {image: "%s", allowed: ["%s/cnb/"]}\n' "$(given lifecycle %s)" "$REGISTRY"
		if chart_has 'externalUrl:'; then printf 'externalUrl: "http://%s:%s"\n' "$NODE_IP" "$OPERATOR_PORT"; fi
		# Receivers of the tests are on the node.
		if chart_has '  notify:'; then printf 'webhooks: {notify: {allowHttp: true, allowedRanges: ["%s/32"]}}\n' "$NODE_IP"; fi
	} | put "$VALUES"
}

installed_hash() {
	{
		cd "$CHART"
		find . -type f -print0 | sort -z | xargs -0 sha256sum
		cat "$VALUES"
		database_url "$NODE_IP"
	} | sha256sum
}

# The cluster's word, and the operator's own: after a crash the former is stale.
available() {
	kube -n "$NAMESPACE" wait deployment -l "app.kubernetes.io/instance=$RELEASE" --for=condition=Available --timeout=0s >/dev/null 2>&1 &&
		curl -fsS -m 2 -o /dev/null "http://$NODE_IP:$OPERATOR_PORT/readyz" 2>/dev/null
}

own_helm() {
	HELM_CACHE_HOME="$STATE/helm" HELM_CONFIG_HOME="$STATE/helm" HELM_DATA_HOME="$STATE/helm" \
		"$HELM_BIN/helm" --kubeconfig "$ADMIN_KUBECONFIG" -n "$NAMESPACE" "$@"
}

# database_secret URL KUBECTL...: the URL goes over stdin, not the command line.
database_secret() {
	local url=$1
	shift
	"$@" create namespace "$NAMESPACE" --dry-run=client -o yaml | "$@" apply -f - >/dev/null
	printf '%s' "$url" | "$@" -n "$NAMESPACE" create secret generic "$DATABASE_SECRET" --from-file=url=/dev/stdin --dry-run=client -o yaml | "$@" apply -f - >/dev/null
}

# A port of the node for webhooks and the API, so that the host reaches them too.
node_port() {
	kube -n "$NAMESPACE" apply -f - >/dev/null <<-YAML
		apiVersion: v1
		kind: Service
		metadata: {name: image-factory-host}
		spec:
		  type: NodePort
		  selector: {app.kubernetes.io/instance: $RELEASE}
		  ports: [{name: http, port: 80, targetPort: 8080, nodePort: $OPERATOR_PORT}]
	YAML
}

operator_up() {
	local hash
	if [[ ! -f $CHART/Chart.yaml ]]; then
		say "there is no chart in charts/image-factory: the cluster is up, without the operator"
		return 0
	fi
	operator_binaries
	operator_image_up
	values
	hash=$(installed_hash)
	if [[ $(cat "$STATE/installed" 2>/dev/null) == "$hash" ]]; then
		if available; then return 0; fi
		# What we just started may still bring it back by itself.
		if [[ -n $STARTED ]] && wait_for 20 "the operator" available; then return 0; fi
	fi
	say "installing the chart"
	rm -f "$STATE/installed"
	database_secret "$(database_url "$NODE_IP")" kube
	node_port
	# Of an installation that was killed halfway, helm would wait for ever; of a
	# crashing operator, the kubelet's back-off.
	kube -n "$NAMESPACE" delete secret -l 'owner=helm,status in (pending-install, pending-upgrade, pending-rollback)' >/dev/null
	available || kube -n "$NAMESPACE" delete pod -l "app.kubernetes.io/instance=$RELEASE" --wait=false >/dev/null 2>&1
	if ! own_helm upgrade --install "$RELEASE" "$CHART" -f "$VALUES" --wait --timeout 2m >"$LOGS/helm.log" 2>&1; then
		cat "$LOGS/helm.log" >&2
		kube -n "$NAMESPACE" get pods >&2 || true
		kube -n "$NAMESPACE" logs -l "app.kubernetes.io/instance=$RELEASE" --tail 20 >&2 || true
		die "the operator does not come up"
	fi
	wait_for 60 "the operator" available || die "the operator does not answer at http://$NODE_IP:$OPERATOR_PORT/readyz: kubectl -n $NAMESPACE get pods"
	printf '%s' "$hash" >"$STATE/installed"
}

# CLUSTER=external: only the chart, into the cluster of the caller's KUBECONFIG.
external_up() {
	local helm
	[[ -n ${KUBECONFIG:-} ]] || die "CLUSTER=external needs KUBECONFIG, the cluster to install into"
	[[ -n ${DATABASE_URL:-} ]] || die "CLUSTER=external needs DATABASE_URL, a Postgres that the cluster's Pods can reach"
	[[ ${IMAGE:-} == *:* ]] || die "CLUSTER=external needs IMAGE=repository:tag, the operator's image in a registry that the cluster can pull from"
	[[ -f $CHART/Chart.yaml ]] || die "there is no chart in charts/image-factory"
	command -v kubectl >/dev/null || die "CLUSTER=external needs kubectl on the PATH"
	helm=$(command -v helm) || {
		compile_helm
		helm="$HELM_BIN/helm"
	}
	database_secret "$DATABASE_URL" kubectl
	"$helm" upgrade --install "$RELEASE" "$CHART" -n "$NAMESPACE" \
		--set-string "image.repository=${IMAGE%:*}" --set-string "image.tag=${IMAGE##*:}" --set-string "database.existingSecret=$DATABASE_SECRET" \
		${HELM_VALUES:+-f "$HELM_VALUES"} --wait --timeout 5m
}
