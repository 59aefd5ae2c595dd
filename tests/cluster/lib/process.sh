# shellcheck shell=bash
# Background processes: each has a file with its pid, the time it started at, the
# machine's boot and a hash of its command line and configuration. A pid that was
# given to another process since is thereby never taken for ours, nor killed.

RUN="$STATE/run"
LOGS="$STATE/log"

# The 22nd field of /proc/PID/stat; the 2nd may hold spaces and parentheses.
start_time() {
	local stat fields
	stat=$(cat "/proc/$1/stat" 2>/dev/null) || return 1
	read -r -a fields <<<"${stat##*) }"
	[[ ${fields[0]} != Z ]] || return 1
	printf '%s' "${fields[19]}"
}

boot_id() { cat /proc/sys/kernel/random/boot_id; }

# alive_at FILE: prints the pid if the process that the file describes still runs.
alive_at() {
	local pid started boot _rest
	[[ -s $1 ]] || return 1
	read -r pid started boot _rest <"$1" || return 1
	[[ $boot == "$(boot_id)" && $started == "$(start_time "$pid")" ]] || return 1
	printf '%s' "$pid"
}

alive() { alive_at "$RUN/$1.pid"; }

# What a process was started with: arguments, and the contents of those of its
# configuration files that we write.
command_hash() {
	local arg file
	for arg in "$@"; do
		printf '%s\n' "$arg"
		file=${arg#*=}
		if [[ $file == "$STATE"/etc/* && -f $file ]]; then cat "$file"; fi
	done | sha256sum | cut -c1-16
}

# serve NAME COMMAND...: runs it unless it already runs as it should, detached
# from our terminal, our pipes, our lock and the caller's environment.
serve() {
	local name=$1 hash pid old
	shift
	hash=$(command_hash "$@")
	if alive "$name" >/dev/null; then
		old=$(awk '{print $4}' "$RUN/$name.pid")
		[[ $old != "$hash" ]] || return 0
		say "restarting $name: its configuration changed"
		halt "$name"
	else
		say "starting $name"
	fi
	if [[ -f $LOGS/$name.log && $(stat -c %s "$LOGS/$name.log") -gt 50000000 ]]; then mv -f "$LOGS/$name.log" "$LOGS/$name.log.1"; fi
	(
		cd "$STATE"
		exec env -i PATH="$PATH" HOME="$STATE" setsid nohup "$@" </dev/null >>"$LOGS/$name.log" 2>&1 3>&- 4>&- 9>&-
	) &
	pid=$!
	printf '%s %s %s %s\n' "$pid" "$(start_time "$pid")" "$(boot_id)" "$hash" >"$RUN/$name.pid"
	STARTED="$STARTED $name"
}
STARTED=""

# ready NAME SECONDS COMMAND...: waits for a process of ours to answer, and shows
# the end of its log if it doesn't.
ready() {
	local name=$1 seconds=$2 deadline
	shift 2
	deadline=$((SECONDS + seconds))
	until "$@" >/dev/null 2>&1; do
		if ! alive "$name" >/dev/null || ((SECONDS >= deadline)); then
			tail -n 15 "$LOGS/$name.log" >&2 || true
			die "$name does not answer (its log: $LOGS/$name.log)"
		fi
		sleep 0.2
	done
}

# halt NAME [SIGNAL] [SECONDS]: asks it to end, and after a while makes it.
halt() {
	local name=$1 signal=${2:-TERM} seconds=${3:-15} pid deadline
	if pid=$(alive "$name"); then
		kill -s "$signal" "$pid" 2>/dev/null || true
		deadline=$((SECONDS + seconds))
		while alive "$name" >/dev/null; do
			if ((SECONDS >= deadline)); then
				kill -s KILL "$pid" 2>/dev/null || true
				sleep 0.5
				break
			fi
			sleep 0.1
		done
	fi
	rm -f "$RUN/$name.pid"
}

# port_free NAME PORT [ADDRESS]: refuses to start a process on a port of another.
port_free() {
	local name=$1 port=$2 kind=${3:-tcp} holder flags=-Hltnp
	if alive "$name" >/dev/null; then return 0; fi
	if [[ $kind == udp ]]; then flags=-Hlunp; fi
	holder=$(ss "$flags" "sport = :$port" 2>/dev/null | grep -E "(0\.0\.0\.0|\*|\[::\]|127\.0\.0\.1|${NODE_IP//./\\.})(%[a-z0-9]+)?:$port " | head -1 || true)
	[[ -z $holder ]] || die "$name needs port $port/$kind, which something else holds: $holder"
}
