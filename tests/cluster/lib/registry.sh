# shellcheck shell=bash
# The registry, plain http on all addresses, so that the host and the Pods call it
# by one name. Deleting is allowed, as the operator can be asked to.

registry_up() {
	mkdir -p "$STATE/registry"
	put "$STATE/etc/registry.yml" <<-YAML
		version: 0.1
		log: {level: warn, accesslog: {disabled: true}}
		storage:
		  filesystem: {rootdirectory: $STATE/registry, maxthreads: 100}
		  delete: {enabled: true}
		http: {addr: "0.0.0.0:${REGISTRY##*:}"}
	YAML
	port_free registry "${REGISTRY##*:}"
	serve registry docker-registry serve "$STATE/etc/registry.yml"
	ready registry 20 curl -fsS "http://$REGISTRY/v2/"
}

registry_down() { halt registry; }
