# shellcheck shell=bash
# The node's own network: a bridge without ports that carries the node's address
# (a dummy device would do, but not every kernel has one), and forwarding. Pods
# are routed, a veth pair each (CNI's ptp), so Services between two Pods of the
# node need no netfilter on bridges.

network_up() {
	if [[ ! -d /sys/class/net/$NODE_BRIDGE ]]; then
		ip link add "$NODE_BRIDGE" type bridge
		touch "$RUN/made-bridge"
	fi
	ip addr replace "$NODE_IP/32" dev "$NODE_BRIDGE"
	ip link set "$NODE_BRIDGE" up
	if [[ $(cat /proc/sys/net/ipv4/ip_forward) != 1 ]]; then
		echo 1 >/proc/sys/net/ipv4/ip_forward
		touch "$RUN/made-forwarding"
	fi
}

network_down() {
	if [[ -f $RUN/made-bridge ]]; then ip link delete "$NODE_BRIDGE" 2>/dev/null || true; fi
	if [[ -f $RUN/made-forwarding ]]; then echo 0 >/proc/sys/net/ipv4/ip_forward; fi
	rm -f "$RUN/made-bridge" "$RUN/made-forwarding"
}
