#!/usr/bin/env bash
# A short run of the database under valgrind: the extension is made, used and dropped again in one backend. Memory that
# the extension reads or writes wrongly ends the run with an error; what the server does on its own account does not.
PGT_WITH_VALGRIND=1
# shellcheck source=scripts/setup.sh
. "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
make_scratch
install_extension
cd "$PGT_ROOT"

DATA=$PGT_SCRATCH/data
as_server_user sh -c 'umask 077; openssl rand -base64 32 >"$1"' sh "$PGT_SCRATCH/master.key"
"$PGT_BIN/initdb" -D "$DATA" -U postgres -A trust --no-sync --locale=C -E UTF8 >/dev/null
cat >>"$DATA/postgresql.conf" <<EOF
listen_addresses = ''
unix_socket_directories = '$PGT_SCRATCH'
shared_preload_libraries = 'pg_tenancy'
tenancy.master_key_file = '$PGT_SCRATCH/master.key'
fsync = off
autovacuum = off
EOF

step "A server under valgrind"
SERVER=$PGT_RUN$PGT_SYSTEM_LIB/bin/postgres
as_server_user env -C / valgrind --quiet --trace-children=yes --error-exitcode=0 --num-callers=30 --undef-value-errors=yes \
    --log-file="$PGT_SCRATCH/valgrind.%p" "$SERVER" -D "$DATA" >"$PGT_SCRATCH/log" 2>&1 9>&- &
for ((second = 0; second < 120; second++)); do
    if "$PGT_BIN/pg_isready" -q -h "$PGT_SCRATCH"; then break; fi
    sleep 1
done
query() { "$PGT_BIN/psql" -h "$PGT_SCRATCH" -U postgres -XAtq -v ON_ERROR_STOP=1 -d postgres "$@" >/dev/null; }
step "The extension in use"
for role in app:application svc:service ops:operator met:metrics; do
    roles+="CREATE ROLE ${role%:*} LOGIN; "
    grants+="SELECT tenancy.grant_access('${role%:*}', '${role#*:}'); "
done
query -c "$roles" -c 'CREATE EXTENSION pg_tenancy' -c 'SELECT tenancy.install()' -c "$grants" \
    -c "SELECT tenancy.add_issuer('https://issuer.test', ARRAY['tests'])" \
    -c "SELECT tenancy.add_secret('https://issuer.test', 'key-1', 'HS256', 'a secret of the tests, forty-two bytes long')"
query -f tests/common/lived_in.sql
query -c 'SELECT count(*) FROM tenancy.verify_ledger()' -c 'SELECT count(*) FROM tenancy.audit_isolation()' \
    -c 'SELECT tenancy.metrics_text()' -c "SELECT tenancy.verify_token('a.b.c')" -c 'SELECT * FROM tenancy.health()' \
    -c 'SELECT tenancy.uninstall(current_database())' -c 'DROP EXTENSION pg_tenancy CASCADE'
"$PGT_BIN/pg_ctl" -D "$DATA" -m fast -w -t 120 stop >/dev/null
wait

# Of valgrind's findings, those with a frame of ours.
FOUND=$(awk 'BEGIN { RS = "==[0-9]+== \n" } /pg_tenancy\.so/' "$PGT_SCRATCH"/valgrind.*)
if [ -n "$FOUND" ]; then
    printf '%s\n' "$FOUND" | head -n 120
    die "valgrind found something in pg_tenancy."
fi
note "valgrind: $(cat "$PGT_SCRATCH"/valgrind.* | grep -c . || true) lines about the server itself, none about pg_tenancy"
