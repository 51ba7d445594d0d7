#!/usr/bin/env bash
# The road to this version from the last one that was released: sql/pg_tenancy--OLD--NEW.sql, from the two scripts.
# To be run again, and committed, with every change of the extension's SQL; tests/upgrade holds that it leads to what a
# fresh database has.
# shellcheck source=scripts/setup.sh
. "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
cd "$PGT_ROOT"
VERSION=$(sed -n 's/^version = "\(.*\)"$/\1/p' Cargo.toml | head -n 1)
LAST=
for released in $(cd tests/released && printf '%s\n' *.sql.gz | sort -V); do
    released=${released#pg_tenancy--}
    released=${released%.sql.gz}
    if [ "$released" = "$VERSION" ]; then die "$VERSION is released already: its script does not change."; fi
    LAST=$released
done
[ -n "$LAST" ] || die "no version is released yet."
make_scratch
install_extension
gzip -dc "tests/released/pg_tenancy--$LAST.sql.gz" >"$PGT_SCRATCH/last.sql"
python3 scripts/upgrade_script.py "$PGT_SCRATCH/last.sql" \
    "$("$PGT_BIN/pg_config" --sharedir)/extension/pg_tenancy--$VERSION.sql" >"$PGT_SCRATCH/road.sql" ||
    die "what is named above is to be written by hand." "See scripts/upgrade_script.py."
cp "$PGT_SCRATCH/road.sql" "sql/pg_tenancy--$LAST--$VERSION.sql"
note "written: sql/pg_tenancy--$LAST--$VERSION.sql"
