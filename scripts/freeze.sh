#!/usr/bin/env bash
# At a release, once: keeps what databases out there are made by, so that tests can hold it. Writes the new lines of
# tests/released_migrations.txt and the extension's script as tests/released/pg_tenancy--VERSION.sql.gz; commit both.
# What was kept before is never written again.
# shellcheck source=scripts/setup.sh
. "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
cd "$PGT_ROOT"
VERSION=$(sed -n 's/^version = "\(.*\)"$/\1/p' Cargo.toml | head -n 1)
KEPT=tests/released/pg_tenancy--$VERSION.sql.gz
[ ! -e "$KEPT" ] || die "$VERSION is released already." "Give the next version its number in Cargo.toml and META.json."
make_scratch
install_extension
mkdir -p tests/released
gzip -9n <"$("$PGT_BIN/pg_config" --sharedir)/extension/pg_tenancy--$VERSION.sql" >"$KEPT"
LIST=tests/released_migrations.txt
sed -i 's/ None is released yet\.$//' "$LIST"
for file in sql/schema/*.sql; do
    number=$((10#$(basename "$file" | cut -d_ -f1)))
    grep -q "^$number " "$LIST" || printf '%s %s\n' "$number" "$(sha256sum <"$file" | cut -d' ' -f1)" >>"$LIST"
done
note "frozen: $VERSION, with migrations up to $(tail -n 1 "$LIST" | cut -d' ' -f1)"
