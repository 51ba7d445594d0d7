#!/usr/bin/env bash
# Tells the story of demo/*.sql in a private cluster that is gone afterwards. KEEP=1 leaves it up.
# shellcheck source=scripts/setup.sh
. "$(dirname "${BASH_SOURCE[0]}")/setup.sh"

install_extension
make_scratch
DATA=$PGT_SCRATCH/data

step "Starting a private Postgres (its own data folder, a unix socket, no TCP port)"
"$PGT_BIN/initdb" -D "$DATA" -U postgres -A trust -E UTF8 --locale=C --no-sync --no-instructions >"$PGT_SCRATCH/initdb.log"
# The master key seals secrets at rest; issuer.key is the HS256 secret of the token service we trust.
as_server_user sh -c 'umask 077
    openssl rand -base64 32 >"$1/master.key"
    openssl rand 32 >"$1/data/issuer.key"
    openssl rand 32 >"$1/other.key"' sh "$PGT_SCRATCH"
cat >>"$DATA/postgresql.conf" <<EOF
listen_addresses = ''
unix_socket_directories = '$PGT_SCRATCH'
shared_preload_libraries = 'pg_tenancy'
tenancy.master_key_file = '$PGT_SCRATCH/master.key'
fsync = off
EOF
"$PGT_BIN/pg_ctl" -D "$DATA" -l "$PGT_SCRATCH/log" -w start >/dev/null 9>&- ||
    die "the server did not start:" "$(tail -n 20 "$PGT_SCRATCH/log")"
"$PGT_BIN/createdb" -h "$PGT_SCRATCH" -U postgres demo

bold='' plain=''
if [ -t 1 ]; then bold=$'\e[1m' plain=$'\e[0m'; fi
stories=()
for story in "$PGT_ROOT"/demo/*.sql; do stories+=(-f "$story"); done
status=0
# Tokens are long: only their beginning is shown. psql shows a statement that ends in \gset without its semicolon.
DEMO_SIGN=$PGT_ROOT/demo/sign DEMO_SCHOOL=$PGT_ROOT/demo/school \
    DEMO_KEY=$DATA/issuer.key DEMO_OTHER_KEY=$PGT_SCRATCH/other.key \
    "$PGT_BIN/psql" -X -q -h "$PGT_SCRATCH" -U postgres -d demo -v bold="$bold" -v plain="$plain" "${stories[@]}" 9>&- 2>&1 |
    sed -u -E -e 's/(eyJ[A-Za-z0-9_-]{8})[A-Za-z0-9_.-]{20,}/\1…/g' -e 's/^psql:[^ ]*:[0-9]+: //' -e 's/^(SELECT .*( AS [a-z_]+|\))) $/\1;/' || status=$?

if [ -n "${KEEP:-}" ]; then
    PGT_KEEP=1
    printf '%s\n' "$PGT_RUN" >"$PGT_SCRATCH/kept"
    step "The cluster is still up"
    note "reach it:  $PGT_BIN/psql -h $PGT_SCRATCH -U postgres demo"
    note "end it:    $PGT_BIN/pg_ctl -D $DATA -m fast stop && rm -rf $PGT_SCRATCH"
fi
if [ "$status" != 0 ]; then die "the demo did not show what it says (above: the step that failed)."; fi
step "Every step showed what it says"
