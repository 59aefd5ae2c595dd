# shellcheck shell=bash
# etcd, the API server (with Pod Security admission and an audit log of who asked
# what, from which tests count requests), the controller manager and the scheduler.

audit_policy() {
	put "$STATE/etc/audit.yaml" <<-'YAML'
		# Metadata of every request; the reads of the system's own components and
		# the leases would be most of the log and say nothing.
		apiVersion: audit.k8s.io/v1
		kind: Policy
		omitStages: [RequestReceived]
		rules:
		  - {level: None, resources: [{group: coordination.k8s.io, resources: [leases]}], userGroups: ["system:nodes"]}
		  - {level: None, verbs: [get, list, watch], userGroups: ["system:nodes"]}
		  - {level: None, verbs: [get, list, watch], users: ["system:kube-controller-manager", "system:kube-scheduler", "system:kube-proxy", "system:coredns", "system:apiserver"]}
		  - {level: None, nonResourceURLs: ["/livez*", "/readyz*", "/healthz*"]}
		  - {level: Metadata}
	YAML
}

control_plane_up() {
	local client=2379 peer=2380
	audit_policy
	port_free etcd $client
	port_free etcd $peer
	install -d -m 0700 "$STATE/etcd"
	serve etcd "$KUBE_BIN/etcd" --data-dir "$STATE/etcd" --log-level warn --unsafe-no-fsync \
		--listen-client-urls "http://127.0.0.1:$client" --advertise-client-urls "http://127.0.0.1:$client" \
		--listen-peer-urls "http://127.0.0.1:$peer" --initial-advertise-peer-urls "http://127.0.0.1:$peer" --initial-cluster "default=http://127.0.0.1:$peer" \
		--auto-compaction-mode periodic --auto-compaction-retention 10m --quota-backend-bytes 4294967296
	ready etcd 30 curl -fsS "http://127.0.0.1:$client/health"
	port_free kube-apiserver "$API_PORT"
	serve kube-apiserver "$KUBE_BIN/kube-apiserver" --etcd-servers "http://127.0.0.1:$client" \
		--bind-address 0.0.0.0 --advertise-address "$NODE_IP" --secure-port "$API_PORT" \
		--client-ca-file "$PKI/ca.crt" --tls-cert-file "$PKI/apiserver.crt" --tls-private-key-file "$PKI/apiserver.key" \
		--service-account-issuer https://kubernetes.default.svc --service-account-key-file "$PKI/sa.pub" --service-account-signing-key-file "$PKI/sa.key" \
		--service-cluster-ip-range "$SERVICE_CIDR" --authorization-mode Node,RBAC --enable-admission-plugins NodeRestriction --allow-privileged \
		--kubelet-client-certificate "$PKI/apiserver-kubelet.crt" --kubelet-client-key "$PKI/apiserver-kubelet.key" \
		--kubelet-certificate-authority "$PKI/ca.crt" --kubelet-preferred-address-types InternalIP,Hostname \
		--audit-policy-file "$STATE/etc/audit.yaml" --audit-log-path "$LOGS/audit.log" --audit-log-maxsize 200 --audit-log-maxbackup 2
	ready kube-apiserver 90 kube get --raw /readyz
	port_free kube-controller-manager 10257
	serve kube-controller-manager "$KUBE_BIN/kube-controller-manager" --kubeconfig "$STATE/etc/kube-controller-manager.kubeconfig" \
		--authentication-kubeconfig "$STATE/etc/kube-controller-manager.kubeconfig" --authorization-kubeconfig "$STATE/etc/kube-controller-manager.kubeconfig" \
		--bind-address 127.0.0.1 --leader-elect=false --use-service-account-credentials \
		--service-account-private-key-file "$PKI/sa.key" --root-ca-file "$PKI/ca.crt" \
		--cluster-signing-cert-file "$PKI/ca.crt" --cluster-signing-key-file "$PKI/ca.key"
	port_free kube-scheduler 10259
	serve kube-scheduler "$KUBE_BIN/kube-scheduler" --kubeconfig "$STATE/etc/kube-scheduler.kubeconfig" \
		--authentication-kubeconfig "$STATE/etc/kube-scheduler.kubeconfig" --authorization-kubeconfig "$STATE/etc/kube-scheduler.kubeconfig" \
		--bind-address 127.0.0.1 --leader-elect=false
}

control_plane_down() {
	halt kube-scheduler
	halt kube-controller-manager
	halt kube-apiserver TERM 20
	halt etcd
}
