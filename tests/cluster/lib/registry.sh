# shellcheck shell=bash
# Three registries, each on all addresses, so that the host and the Pods call it by
# one name: an open one over plain http, which everything comes from, one that asks
# for a password, and one that speaks TLS with a certificate nobody trusts. Deleting
# is allowed, as the operator can be asked to.

REGISTRY_PRIVATE="$NODE_IP:5001"
REGISTRY_PRIVATE_USER=orchard
REGISTRY_TLS="$NODE_IP:5443"

registry_password() {
	local file="$STATE/secret/registry"
	[[ -s $file ]] || openssl rand -hex 12 | put "$file" 0600
	cat "$file"
}

# serve_registry NAME ADDRESS HTTP [AUTH]: HTTP and AUTH are more of its configuration.
serve_registry() {
	local name=$1 port=${2##*:}
	mkdir -p "$STATE/$name"
	put "$STATE/etc/$name.yml" <<-YAML
		version: 0.1
		log: {level: warn, accesslog: {disabled: true}}
		storage:
		  filesystem: {rootdirectory: $STATE/$name, maxthreads: 100}
		  delete: {enabled: true}
		http: {addr: "0.0.0.0:$port"$3}
		${4:-}
	YAML
	port_free "$name" "$port"
	serve "$name" docker-registry serve "$STATE/etc/$name.yml"
}

registry_up() {
	serve_registry registry "$REGISTRY" ""
	ready registry 20 curl -fsS "http://$REGISTRY/v2/"
}

# After pki_up, whose authority signs the certificate.
private_registries_up() {
	local users="$STATE/etc/registry-users"
	# A hash has a new salt each time: made once, and again for another password.
	if ! htpasswd -vi "$users" "$REGISTRY_PRIVATE_USER" < <(registry_password) >/dev/null 2>&1; then
		registry_password | htpasswd -niB "$REGISTRY_PRIVATE_USER" | put "$users" 0600
	fi
	serve_registry registry-private "$REGISTRY_PRIVATE" "" "auth: {htpasswd: {realm: orchard, path: $users}}"
	certificate registry "/CN=registry" "extendedKeyUsage=serverAuth\nsubjectAltName=IP:$NODE_IP"
	serve_registry registry-tls "$REGISTRY_TLS" ", tls: {certificate: $PKI/registry.crt, key: $PKI/registry.key}"
	ready registry-private 20 curl -fsS -u "$REGISTRY_PRIVATE_USER:$(registry_password)" "http://$REGISTRY_PRIVATE/v2/"
	ready registry-tls 20 curl -fsS --cacert "$PKI/ca.crt" "https://$REGISTRY_TLS/v2/"
}

registry_down() {
	halt registry-tls
	halt registry-private
	halt registry
}
