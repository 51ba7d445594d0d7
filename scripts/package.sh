#!/usr/bin/env bash
# Makes what is handed out, in target/package: a .deb for Debian's PostgreSQL, a tarball of the same files, the sources,
# and the list of what is inside (SBOM). scripts/package_test.sh installs and removes the .deb.
PGT_WITH_PACKAGERS=1
# shellcheck source=scripts/setup.sh
. "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
cd "$PGT_ROOT"

VERSION=$(sed -n 's/^version = "\(.*\)"$/\1/p' Cargo.toml | head -n 1)
NAME=postgresql-$PGT_PG_MAJOR-pg-tenancy
ARCHITECTURE=$(dpkg --print-architecture)
OUT=$PGT_TARGET/package
TREE=$OUT/$NAME
DOC=$TREE/usr/share/doc/$NAME
MAINTAINER=$(sed -n 's/^ *"maintainer": "\(.*\)",$/\1/p' META.json)
# The same sources give the same files.
SOURCE_DATE_EPOCH=$(git log -1 --format=%ct 2>/dev/null || stat -c %Y Cargo.toml)
export SOURCE_DATE_EPOCH

# Where it was built stands in no file of it.
CRATES=${CARGO_HOME:-$HOME/.cargo}/registry/src
export RUSTFLAGS="${RUSTFLAGS:-} --remap-path-prefix=$CRATES=crates --remap-path-prefix=$PGT_ROOT=pg_tenancy --remap-path-prefix=$PGT_TARGET=target"
export CFLAGS="${CFLAGS:-} -ffile-prefix-map=$CRATES=crates -ffile-prefix-map=$PGT_TARGET=target"

build() {
    step "Building for release"
    PGRX_BUILD_FLAGS='' cargo pgrx package --pg-config "$PGT_BIN/pg_config" --out-dir "$OUT/build" 9>&-
}

# Debian's places, whatever tree the build was for.
lay_out() {
    step "Laying out $NAME $VERSION"
    local lib=$TREE/usr/lib/postgresql/$PGT_PG_MAJOR/lib share=$TREE/usr/share/postgresql/$PGT_PG_MAJOR/extension
    rm -rf "$TREE"
    install -d "$lib" "$share" "$DOC" "$TREE/DEBIAN"
    find "$OUT/build" -name pg_tenancy.so -exec install -m 644 {} "$lib/" \;
    find "$OUT/build" \( -name pg_tenancy.control -o -name 'pg_tenancy--*.sql' \) -exec install -m 644 {} "$share/" \;
    strip --strip-unneeded "$lib/pg_tenancy.so"
    if grep -aqF -e "$CRATES" -e "$PGT_ROOT" -e "$PGT_TARGET" "$lib/pg_tenancy.so" "$share"/*; then
        note "a file of the package says where it was built"
    fi
    # As in the repository, so that the pages' paths hold: tools/jwks-sync, sql/test/tenancy_test.sql.
    install -m 644 README.md "$DOC/"
    install -d "$DOC/sql"
    cp -r docs monitoring tools "$DOC/"
    cp -r sql/test "$DOC/sql/"
    find "$DOC" -type f -exec chmod 644 {} +
    chmod 755 "$DOC/tools/jwks-sync"
    write_copyright >"$DOC/copyright"
    write_changelog | gzip -9n >"$DOC/changelog.Debian.gz"
    scripts/sbom.sh | gzip -9n >"$DOC/sbom.cdx.json.gz"
}

write_copyright() {
    cat <<EOF
Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/
Upstream-Name: pg_tenancy

Files: *
Copyright: $(sed -n '1s/^Copyright (c) //p' LICENSE)
License: PostgreSQL
$(sed -n '2,$p' LICENSE | sed 's/^$/./; s/^/ /' | sed '1{/^ \.$/d}')

Comment: the library links these crates statically, each under its own licence:
$(cargo tree --offline --edges normal --prefix none --format '{p} {l}' "${PGT_CARGO_FEATURES[@]}" |
        sed -e 's/ ([^)]*)//g; s/ (\*)$//' | grep -v '^pg_tenancy ' | sort -u | sed 's/^/ /')
EOF
}

write_changelog() {
    cat <<EOF
$NAME ($VERSION-1) unstable; urgency=low

  * See the release notes of pg_tenancy $VERSION.

 -- $MAINTAINER  $(date -u -R -d "@$SOURCE_DATE_EPOCH")
EOF
}

write_control() {
    local depends
    mkdir -p "$OUT/shlibs/debian"
    printf 'Source: pg-tenancy\n\nPackage: %s\nArchitecture: any\n' "$NAME" >"$OUT/shlibs/debian/control"
    depends=$(cd "$OUT/shlibs" && dpkg-shlibdeps -O "$TREE/usr/lib/postgresql/$PGT_PG_MAJOR/lib/pg_tenancy.so" 2>/dev/null |
        sed 's/^shlibs:Depends=//')
    cat <<EOF
Package: $NAME
Source: pg-tenancy
Version: $VERSION-1
Architecture: $ARCHITECTURE
Maintainer: $MAINTAINER
Installed-Size: $(du -ks "$TREE/usr" | cut -f1)
Depends: postgresql-$PGT_PG_MAJOR, $depends
Suggests: python3, prometheus-postgres-exporter
Section: database
Priority: optional
Description: verified identity, tenant isolation and pooled credits for PostgreSQL $PGT_PG_MAJOR
 pg_tenancy answers three questions inside the caller's own transaction: who is
 asking (a verified token), what may they see (row-level isolation by tenant),
 and who pays (pooled credits with full attribution). A request is verified,
 isolated and charged together, or not at all.
EOF
}

pack() {
    local deb=$OUT/${NAME}_$VERSION-1_$ARCHITECTURE.deb
    step "Packing"
    write_control >"$TREE/DEBIAN/control"
    (cd "$TREE" && find usr -type f -print0 | sort -z | xargs -0 md5sum >DEBIAN/md5sums)
    find "$TREE" -type d -exec chmod 755 {} +
    dpkg-deb --root-owner-group -Zxz --build "$TREE" "$deb" >/dev/null
    tar --sort=name --owner=0 --group=0 --numeric-owner --mtime="@$SOURCE_DATE_EPOCH" --exclude=DEBIAN \
        -C "$TREE" -czf "$OUT/pg_tenancy-$VERSION-pg$PGT_PG_MAJOR-$ARCHITECTURE.tar.gz" usr
    if git rev-parse --git-dir >/dev/null 2>&1; then
        # What PGXN takes.
        git archive --format=zip --prefix="pg_tenancy-$VERSION/" -o "$OUT/pg_tenancy-$VERSION.zip" HEAD
    fi
    scripts/sbom.sh >"$OUT/pg_tenancy-$VERSION.cdx.json"
    step "lintian"
    lintian --fail-on error --suppress-tags bad-distribution-in-changes-file "$deb"
    step "Made in target/package"
    (cd "$OUT" && sha256sum ./*.deb ./*.tar.gz ./*.zip ./*.json | tee SHA256SUMS)
}

build
lay_out
pack
