#!/usr/bin/env bash
# Builds the extension for release and puts it into a server: the system's, or the one PG_CONFIG names.
# shellcheck source=scripts/setup.sh
. "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
cd "$PGT_ROOT"

PG_CONFIG=${PG_CONFIG:-$PGT_SYSTEM_LIB/bin/pg_config}
case $("$PG_CONFIG" --version) in
    "PostgreSQL $PGT_PG_MAJOR."*) ;;
    *) die "$PG_CONFIG belongs to $("$PG_CONFIG" --version); this builds for PostgreSQL $PGT_PG_MAJOR." ;;
esac
FLAGS=()
if [ ! -w "$("$PG_CONFIG" --pkglibdir)" ]; then
    command -v sudo >/dev/null ||
        die "this user cannot write to $("$PG_CONFIG" --pkglibdir), and there is no sudo." "Run it as root."
    FLAGS+=(--sudo)
fi
step "Building for release and installing into $("$PG_CONFIG" --pkglibdir)"
PGRX_BUILD_FLAGS='' cargo pgrx install --release --pg-config "$PG_CONFIG" "${FLAGS[@]}" 9>&-
note "next:  CREATE EXTENSION pg_tenancy;  (README.md, quick start)"
