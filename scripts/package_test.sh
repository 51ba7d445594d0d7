#!/usr/bin/env bash
# Installs the .deb of `make package` into this machine with apt, tries it, removes it, and looks whether anything is
# left. Root only. The server is a throw-away cluster of Debian's own programs.
# shellcheck source=scripts/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
[ "$(id -u)" = 0 ] || die "apt needs root."
NAME=postgresql-$PGT_PG_MAJOR-pg-tenancy
DEB=$(find "$PGT_TARGET/package" -maxdepth 1 -name "${NAME}_*.deb" | sort | tail -n 1)
[ -n "$DEB" ] || die "there is no .deb in target/package." "make package makes it."
choose_temporary_folder
SCRATCH=$(mktemp -d "$PGT_TMP/pgtp.XXXXXX")
BIN=$PGT_SYSTEM_LIB/bin
finish() {
    as_server_user "$BIN/pg_ctl" -D "$SCRATCH/data" -m immediate stop >/dev/null 2>&1 || true
    rm -rf "$SCRATCH"
}
trap finish EXIT
chown postgres: "$SCRATCH"
# apt reads it as a user of its own.
chmod 755 "$SCRATCH"
cp "$DEB" "$SCRATCH/package.deb"
# The folders' times are part of how the tests recognize a changed server.
FOLDERS=("$PGT_SYSTEM_LIB/lib" "$PGT_SYSTEM_SHARE/extension")
TIMES=("$(stat -c %y "${FOLDERS[0]}")" "$(stat -c %y "${FOLDERS[1]}")")
query() { as_server_user "$BIN/psql" -h "$SCRATCH" -U postgres -XAtq -v ON_ERROR_STOP=1 -c "$1" postgres; }

step "apt-get install"
apt-get install -y "$SCRATCH/package.deb" </dev/null
step "A server with it"
cd /
as_server_user "$BIN/initdb" -D "$SCRATCH/data" -U postgres -A trust --no-sync >/dev/null
as_server_user sh -c "umask 077; openssl rand -base64 32 >'$SCRATCH/master.key'"
cat >>"$SCRATCH/data/postgresql.conf" <<EOF
listen_addresses = ''
unix_socket_directories = '$SCRATCH'
shared_preload_libraries = 'pg_tenancy'
tenancy.master_key_file = '$SCRATCH/master.key'
EOF
as_server_user "$BIN/pg_ctl" -D "$SCRATCH/data" -l "$SCRATCH/log" -w start >/dev/null
query 'CREATE EXTENSION pg_tenancy'
note "tenancy.install(): $(query 'SELECT tenancy.install()')"
query "SELECT tenancy.register_user('u'), tenancy.grant_credits(10, user_id => 'u'), tenancy.deduct_credits_pooled('u', 1)" >/dev/null
bad=$(query "SELECT check_name || ': ' || detail FROM tenancy.health() WHERE status <> 'ok'")
[ -z "$bad" ] || die "health(): $bad"
query "SELECT tenancy.uninstall('postgres')" >/dev/null
query 'DROP EXTENSION pg_tenancy'
step "apt-get remove"
apt-get remove -y --purge "$NAME" </dev/null
left=$(find /usr/lib/postgresql /usr/share/postgresql /usr/share/doc -name '*pg_tenancy*' -o -name "$NAME*")
[ -z "$left" ] || die "left behind:" "$left"
for index in 0 1; do touch -d "${TIMES[$index]}" "${FOLDERS[$index]}"; done
note "installed, used, removed: nothing is left"
