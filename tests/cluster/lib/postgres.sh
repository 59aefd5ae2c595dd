# shellcheck shell=bash
# A Postgres of our own, beside any that the machine runs: own data, port 15432,
# on the loopback and the node's address, with a generated password. It runs as
# the user postgres, since it refuses to run as root. Durability against power
# loss is off (fsync), against killed processes it is not; POSTGRES_FSYNC=on
# for what is measured.

PGDATA="$STATE/postgres"
PGSOCKET="$STATE/sock"

as_postgres() { setpriv --reuid postgres --regid postgres --init-groups env -i PATH="$PATH" LC_ALL=C.UTF-8 HOME="$PGSOCKET" "$@"; }
superuser() { as_postgres psql -X -q -v ON_ERROR_STOP=1 -h "$PGSOCKET" -p "$POSTGRES_PORT" -U postgres "$@"; }

postgres_bin() {
	local newest
	newest=$(find /usr/lib/postgresql -mindepth 1 -maxdepth 1 -printf '%f\n' | sort -n | tail -1)
	printf '/usr/lib/postgresql/%s/bin' "$newest"
}

postgres_password() {
	local file="$STATE/secret/postgres"
	[[ -s $file ]] || openssl rand -hex 16 | put "$file" 0600
	cat "$file"
}

# database_url HOST
database_url() { printf 'postgres://image_factory:%s@%s:%s/image_factory' "$(postgres_password)" "$1" "$POSTGRES_PORT"; }

postgres_up() {
	local bin try fsync=${POSTGRES_FSYNC:-off}
	bin=$(postgres_bin)
	install -d -o postgres -g postgres -m 0700 "$PGDATA"
	install -d -o postgres -g postgres -m 0755 "$PGSOCKET"
	if [[ ! -f $PGDATA/image-factory-complete ]]; then
		say "creating the database"
		find "$PGDATA" -mindepth 1 -delete
		as_postgres "$bin/initdb" -D "$PGDATA" -U postgres --no-sync --auth-local=peer --auth-host=scram-sha-256 --encoding=UTF8 --locale=C.UTF-8 >"$LOGS/initdb.log" 2>&1 || die "initdb failed: $LOGS/initdb.log"
		echo 'host all all 0.0.0.0/0 scram-sha-256' >>"$PGDATA/pg_hba.conf"
		as_postgres touch "$PGDATA/image-factory-complete"
	fi
	port_free postgres "$POSTGRES_PORT"
	# The backends of a killed server take a moment to see that it is gone.
	for try in 1 2 3 4 5; do
		serve postgres setpriv --reuid postgres --regid postgres --init-groups \
			env LC_ALL=C.UTF-8 "$bin/postgres" -D "$PGDATA" -p "$POSTGRES_PORT" \
			-c listen_addresses="127.0.0.1,$NODE_IP" -c unix_socket_directories="$PGSOCKET" \
			-c fsync="$fsync" -c full_page_writes="$fsync" -c max_connections=300 -c shared_buffers=256MB \
			-c shared_preload_libraries=pg_stat_statements -c timezone=UTC -c log_timezone=UTC \
			-c log_line_prefix='%m [%p] %u@%d '
		while alive postgres >/dev/null; do
			superuser -c 'select 1' >/dev/null 2>&1 && break 2
			sleep 0.1
		done
		((try < 5)) || die "Postgres does not start (its log: $LOGS/postgres.log)"
		sleep 1
	done
	postgres_accounts
}

# The password goes over stdin: a command line is readable by every user.
postgres_accounts() {
	if PGPASSWORD=$(postgres_password) psql -X -q -h "$NODE_IP" -p "$POSTGRES_PORT" -U image_factory -d image_factory -c 'select 1' >/dev/null 2>&1; then return 0; fi
	superuser -d postgres <<-SQL
		do \$\$ begin
		  if not exists (select from pg_roles where rolname = 'image_factory') then create role image_factory; end if;
		end \$\$;
		alter role image_factory login createdb password '$(postgres_password)';
		select 'create database image_factory owner image_factory' where not exists (select from pg_database where datname = 'image_factory') \gexec
		create extension if not exists pg_stat_statements;
		grant pg_read_all_stats to image_factory;
		grant execute on all functions in schema public to image_factory;
	SQL
}

postgres_down() { halt postgres INT 30; }
