#!/usr/bin/env bash
# Measures the extension against what a user would write instead, on a private cluster of its own.
# BENCH=name runs one benchmark; FULL=1 runs long enough to hold the bars (make bench-full); PGT_SECONDS is how long each
# variant runs in a round.
# shellcheck source=scripts/setup.sh
. "$(dirname "${BASH_SOURCE[0]}")/setup.sh"

step "Building the extension (release) and installing it into the private server tree"
cd "$PGT_ROOT"
cargo pgrx install --release --pg-config "$PGT_BIN/pg_config" 9>&-

step "Starting a cluster and loading the benchmarks' world (1M rows, three times)"
make_scratch
DATA=$PGT_SCRATCH/data
KEY=$PGT_SCRATCH/master.key
as_server_user sh -c 'umask 077; openssl rand -hex 32 >"$1"' sh "$KEY"
"$PGT_BIN/initdb" -D "$DATA" -U postgres -A trust -E UTF8 --locale=C.UTF-8 >/dev/null
cat <<CONF | as_server_user tee -a "$DATA/postgresql.conf" >/dev/null
listen_addresses = ''
unix_socket_directories = '$PGT_SCRATCH'
shared_preload_libraries = 'pg_tenancy'
tenancy.master_key_file = '$KEY'
shared_buffers = '512MB'
max_connections = 200
max_wal_size = '4GB'
checkpoint_timeout = '30min'
jit = off
autovacuum_naptime = '5s'
CONF
"$PGT_BIN/pg_ctl" -D "$DATA" -l "$PGT_SCRATCH/log" -w start >/dev/null
export PGHOST=$PGT_SCRATCH PGUSER=postgres PGDATABASE=world PATH="$PGT_BIN:$PATH"
"$PGT_BIN/createdb" -h "$PGT_SCRATCH" -U postgres world
psql -Xq -f "$PGT_ROOT/benches/world.sql"
"$PGT_BIN/createdb" -h "$PGT_SCRATCH" -U postgres -T world bench
psql -Xq -d bench -f "$PGT_ROOT/benches/rows.sql"

step "Benchmarks"
python3 "$PGT_ROOT/benches/run.py" ${FULL:+--full} ${PGT_SECONDS:+--seconds "$PGT_SECONDS"} ${BENCH:+--only "$BENCH"}
