# shellcheck shell=bash
# The one node: containerd, the kubelet, kube-proxy for Services, and CoreDNS,
# which runs on the host at the node's address and is what Pods ask for names.

CONTAINERD_SOCKET="$STATE/containerd.sock"

containerd_config() {
	mkdir -p "$STATE/etc/cni" "$STATE/etc/certs.d/$REGISTRY"
	put "$STATE/etc/certs.d/$REGISTRY/hosts.toml" <<-TOML
		server = "http://$REGISTRY"
		[host."http://$REGISTRY"]
		capabilities = ["pull", "resolve", "push"]
	TOML
	put "$STATE/etc/cni/10-pods.conflist" <<-JSON
		{"cniVersion": "0.4.0", "name": "image-factory", "plugins": [
		  {"type": "ptp", "ipMasq": true,
		   "ipam": {"type": "host-local", "dataDir": "$STATE/addresses", "ranges": [[{"subnet": "$POD_CIDR"}]], "routes": [{"dst": "0.0.0.0/0"}]}},
		  {"type": "portmap", "capabilities": {"portMappings": true}}]}
	JSON
	# restrict_oom_score_adj: the machine may be a container without CAP_SYS_RESOURCE.
	put "$STATE/etc/containerd.toml" <<-TOML
		version = 2
		root = "$STATE/containerd"
		state = "$STATE/containerd-run"
		disabled_plugins = ["io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.zfs"]
		[grpc]
		address = "$CONTAINERD_SOCKET"
		[plugins."io.containerd.internal.v1.opt"]
		path = "$STATE/opt"
		[plugins."io.containerd.grpc.v1.cri"]
		sandbox_image = "$REGISTRY/pause:2"
		restrict_oom_score_adj = true
		[plugins."io.containerd.grpc.v1.cri".cni]
		bin_dir = "/usr/lib/cni"
		conf_dir = "$STATE/etc/cni"
		[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
		runtime_type = "io.containerd.runc.v2"
		[plugins."io.containerd.grpc.v1.cri".registry]
		config_path = "$STATE/etc/certs.d"
	TOML
}

kubelet_config() {
	put "$STATE/etc/kubelet.yaml" <<-YAML
		apiVersion: kubelet.config.k8s.io/v1beta1
		kind: KubeletConfiguration
		failCgroupV1: false
		cgroupDriver: cgroupfs
		failSwapOn: false
		containerRuntimeEndpoint: unix://$CONTAINERD_SOCKET
		authentication: {anonymous: {enabled: false}, webhook: {enabled: true}, x509: {clientCAFile: $PKI/ca.crt}}
		authorization: {mode: Webhook}
		tlsCertFile: $PKI/kubelet.crt
		tlsPrivateKeyFile: $PKI/kubelet.key
		clusterDomain: cluster.local
		clusterDNS: [$NODE_IP]
		resolvConf: /dev/null
		podLogsDir: $STATE/pod-logs
		volumePluginDir: $STATE/volume-plugins
		maxPods: 200
		serializeImagePulls: false
		registryPullQPS: 0
		evictionHard: {"memory.available": "100Mi"}
		imageGCHighThresholdPercent: 100
		imageMaximumGCAge: 0s
	YAML
}

coredns_config() {
	local upstream=
	if grep -q '^nameserver' /etc/resolv.conf 2>/dev/null; then upstream='forward . /etc/resolv.conf'; fi
	put "$STATE/etc/Corefile" <<-COREFILE
		cluster.local:53 in-addr.arpa:53 ip6.arpa:53 {
		  bind $NODE_IP
		  errors
		  kubernetes cluster.local in-addr.arpa ip6.arpa {
		    kubeconfig $STATE/etc/coredns.kubeconfig
		    fallthrough in-addr.arpa ip6.arpa
		  }
		  $upstream
		  cache 5
		}
		.:53 {
		  bind $NODE_IP
		  errors
		  $upstream
		  cache 30
		}
	COREFILE
	kube apply -f - >/dev/null <<-YAML
		apiVersion: rbac.authorization.k8s.io/v1
		kind: ClusterRole
		metadata: {name: image-factory-test-dns}
		rules:
		  - {apiGroups: [""], resources: [services, namespaces, endpoints, pods], verbs: [list, watch]}
		  - {apiGroups: [discovery.k8s.io], resources: [endpointslices], verbs: [list, watch]}
		---
		apiVersion: rbac.authorization.k8s.io/v1
		kind: ClusterRoleBinding
		metadata: {name: image-factory-test-dns}
		roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: image-factory-test-dns}
		subjects: [{apiGroup: rbac.authorization.k8s.io, kind: User, name: "system:coredns"}]
	YAML
}

# What containerd keeps of running containers means nothing after a reboot.
forget_other_boots() {
	if [[ -f $STATE/boot && $(cat "$STATE/boot") != "$(boot_id)" ]]; then
		say "the machine was restarted: forgetting its containers"
		unmount_below "$STATE/containerd-run"
		rm -rf "$STATE/containerd-run"
	fi
	boot_id >"$STATE/boot"
}

containerd_up() {
	containerd_config
	if ! alive containerd >/dev/null; then forget_other_boots; fi
	serve containerd containerd -c "$STATE/etc/containerd.toml"
	ready containerd 30 ctr -a "$CONTAINERD_SOCKET" version
}

# A Pod whose sandbox was killed rather than removed leaves its link and its route behind. The address counts as free
# then, and the next Pod that gets it would hear nothing.
remove_strange_links() {
	local address device
	ip -o -4 route show | awk -v net="${POD_CIDR%.*}." 'index($1, net) == 1 && $2 == "dev" {print $1, $3}' | while read -r address device; do
		[[ -n $(compgen -G "$STATE/addresses/*/$address") ]] || ip link delete "$device" 2>/dev/null || true
	done
}

node_up() {
	containerd_up
	remove_strange_links
	kubelet_config
	port_free kubelet 10250
	claim_leftovers
	serve kubelet "$KUBE_BIN/kubelet" --config "$STATE/etc/kubelet.yaml" --kubeconfig "$STATE/etc/kubelet.kubeconfig" \
		--hostname-override node1 --node-ip "$NODE_IP" --root-dir "$STATE/kubelet"
	port_free kube-proxy 10256
	serve kube-proxy "$KUBE_BIN/kube-proxy" --kubeconfig "$STATE/etc/kube-proxy.kubeconfig" --hostname-override node1 \
		--proxy-mode iptables --conntrack-max-per-core 0
	port_free coredns 53
	port_free coredns 53 udp
	if ! alive coredns >/dev/null; then coredns_config; fi
	serve coredns "$COREDNS_BIN/coredns" -conf "$STATE/etc/Corefile"
	ready kubelet 90 node_ready
	ready coredns 30 busybox nslookup kubernetes.default.svc.cluster.local "$NODE_IP"
}

# A killed kubelet leaves its node Ready for a while, so it is asked itself too.
node_ready() { curl -fsS -m 2 http://127.0.0.1:10248/healthz && kube get node node1 -o 'jsonpath={.status.conditions[?(@.type=="Ready")].status}' | grep -q True; }

unmount_below() {
	awk -v below="$1/" 'index($5, below) == 1 {print $5}' /proc/self/mountinfo | sort -r | while read -r mount; do
		umount -l "$(printf '%b' "$mount")" 2>/dev/null || true
	done
}

# descendants PID: all of them, children first.
descendants() {
	local child
	for child in $(ps -o pid= --ppid "$1"); do
		descendants "$child"
		printf '%s\n' "$child"
	done
}

# The shims name the socket of the containerd that started them, and so are known
# as ours even when containerd itself was killed.
kill_containers() {
	local shim args pids
	for shim in /proc/[0-9]*; do
		mapfile -d '' -t args <"$shim/cmdline" 2>/dev/null || continue
		[[ ${args[0]:-} == *containerd-shim* && " ${args[*]} " == *" -address $CONTAINERD_SOCKET "* ]] || continue
		mapfile -t pids < <(descendants "${shim##*/}")
		kill -KILL "${pids[@]}" "${shim##*/}" 2>/dev/null || true
	done
}

# The kubelet never removes its control groups and chains: ours only if there were
# none before.
claim_leftovers() {
	if alive kubelet >/dev/null; then return 0; fi
	if [[ -z $(compgen -G '/sys/fs/cgroup/*/kubepods') && ! -d /sys/fs/cgroup/kubepods ]]; then touch "$RUN/made-cgroups"; fi
	if ! iptables -w -n -L KUBE-FIREWALL >/dev/null 2>&1; then touch "$RUN/made-chains"; fi
}

remove_leftovers() {
	local command table chain
	if [[ -f $RUN/made-cgroups ]]; then
		find /sys/fs/cgroup/kubepods /sys/fs/cgroup/*/kubepods -depth -type d -exec rmdir {} \; 2>/dev/null || true
	fi
	if [[ -f $RUN/made-chains ]]; then
		"$KUBE_BIN/kube-proxy" --cleanup >"$LOGS/kube-proxy-cleanup.log" 2>&1 || true
		for command in iptables ip6tables; do
			for chain in INPUT OUTPUT; do
				"$command" -w -D $chain -j KUBE-FIREWALL 2>/dev/null || true
			done
			for table in mangle nat filter; do
				for chain in KUBE-FIREWALL KUBE-KUBELET-CANARY KUBE-IPTABLES-HINT; do
					"$command" -w -t $table -F $chain 2>/dev/null || continue
					"$command" -w -t $table -X $chain 2>/dev/null || true
				done
			done
		done
	fi
	rm -f "$RUN/made-cgroups" "$RUN/made-chains"
}

node_down() {
	halt kubelet
	halt kube-proxy
	halt coredns
	# A killed containerd is started once more, to take down what it had set up.
	if ! alive containerd >/dev/null && [[ -n $(compgen -G "$STATE/addresses/*/[0-9]*") ]]; then (containerd_up) || true; fi
	if alive containerd >/dev/null; then
		"$KUBE_BIN/remove-sandboxes" "unix://$CONTAINERD_SOCKET" || true
	fi
	halt containerd
	kill_containers
	remove_strange_links
	unmount_below "$STATE"
}
