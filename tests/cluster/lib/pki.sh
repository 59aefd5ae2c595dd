# shellcheck shell=bash
# Keys and certificates of the cluster: one authority, one client certificate for
# each component under its own name (so that the audit log tells who asked), and
# kubeconfigs that hold all they need.

PKI="$STATE/pki"

# certificate NAME SUBJECT EXTENSIONS: skipped where it exists.
certificate() {
	local name=$1 subject=$2 extensions=$3
	[[ ! -s $PKI/$name.crt ]] || return 0
	openssl ecparam -name prime256v1 -genkey -noout -out "$PKI/$name.key"
	openssl req -new -key "$PKI/$name.key" -subj "$subject" -out "$PKI/$name.csr"
	openssl x509 -req -in "$PKI/$name.csr" -CA "$PKI/ca.crt" -CAkey "$PKI/ca.key" -CAcreateserial -days 3650 \
		-extfile <(printf '%b\n' "$extensions") -out "$PKI/$name.crt.new" 2>/dev/null
	mv "$PKI/$name.crt.new" "$PKI/$name.crt"
	rm "$PKI/$name.csr"
}

# kubeconfig NAME FILE
kubeconfig() {
	put "$2" 0600 <<-YAML
		apiVersion: v1
		kind: Config
		clusters: [{name: image-factory, cluster: {server: "https://$NODE_IP:$API_PORT", certificate-authority-data: $(base64 -w0 "$PKI/ca.crt")}}]
		users: [{name: $1, user: {client-certificate-data: $(base64 -w0 "$PKI/$1.crt"), client-key-data: $(base64 -w0 "$PKI/$1.key")}}]
		contexts: [{name: image-factory, context: {cluster: image-factory, user: $1}}]
		current-context: image-factory
	YAML
}

pki_up() {
	local name
	install -d -m 0700 "$PKI"
	if [[ ! -s $PKI/ca.crt ]]; then
		say "making certificates"
		openssl ecparam -name prime256v1 -genkey -noout -out "$PKI/ca.key"
		openssl req -x509 -new -key "$PKI/ca.key" -days 3650 -subj /CN=image-factory-test -out "$PKI/ca.crt.new"
		mv "$PKI/ca.crt.new" "$PKI/ca.crt"
	fi
	if [[ ! -s $PKI/sa.pub ]]; then
		openssl ecparam -name prime256v1 -genkey -noout -out "$PKI/sa.key"
		openssl ec -in "$PKI/sa.key" -pubout -out "$PKI/sa.pub" 2>/dev/null
	fi
	certificate apiserver /CN=kube-apiserver "extendedKeyUsage=serverAuth\nsubjectAltName=IP:127.0.0.1,IP:$NODE_IP,IP:10.96.0.1,DNS:localhost,DNS:kubernetes,DNS:kubernetes.default,DNS:kubernetes.default.svc,DNS:kubernetes.default.svc.cluster.local"
	certificate apiserver-kubelet /O=system:masters/CN=kube-apiserver-kubelet-client "extendedKeyUsage=clientAuth"
	certificate kubelet /O=system:nodes/CN=system:node:node1 "extendedKeyUsage=clientAuth,serverAuth\nsubjectAltName=DNS:node1,IP:127.0.0.1,IP:$NODE_IP"
	certificate admin /O=system:masters/CN=admin "extendedKeyUsage=clientAuth"
	for name in kube-controller-manager kube-scheduler kube-proxy coredns; do
		certificate "$name" "/CN=system:$name" "extendedKeyUsage=clientAuth"
		kubeconfig "$name" "$STATE/etc/$name.kubeconfig"
	done
	kubeconfig kubelet "$STATE/etc/kubelet.kubeconfig"
	kubeconfig admin "$ADMIN_KUBECONFIG"
}
