#!/usr/bin/env bash
# Builds the documentation as HTML into target/docs with mdBook, which is put below target/tools.
# shellcheck source=scripts/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

VERSION=0.4.52
MDBOOK=$PGT_TARGET/tools/bin/mdbook
if [ "$("$MDBOOK" --version 2>/dev/null)" != "mdbook v$VERSION" ]; then
    step "Installing mdBook $VERSION into target/tools (some minutes, once)"
    CARGO_TARGET_DIR=$PGT_TARGET/tools/build cargo install mdbook --locked --version "=$VERSION" \
        --no-default-features --features search --debug --force --root "$PGT_TARGET/tools"
    rm -rf "$PGT_TARGET/tools/build"
fi
step "Building the documentation"
"$MDBOOK" build "$PGT_ROOT/docs" --dest-dir "$PGT_TARGET/docs"
note "open $PGT_TARGET/docs/index.html"
