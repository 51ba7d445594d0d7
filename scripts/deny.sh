#!/usr/bin/env bash
# Holds the crates that are linked in to deny.toml: licences, sources, versions; and to the published advisories, where
# their database can be fetched. cargo-deny is put below target/tools.
# shellcheck source=scripts/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
cd "$PGT_ROOT"

VERSION=0.20.2
DENY=$PGT_TARGET/tools/bin/cargo-deny
if [ "$("$DENY" --version 2>/dev/null)" != "cargo-deny $VERSION" ]; then
    step "Installing cargo-deny $VERSION into target/tools (some minutes, once)"
    CARGO_TARGET_DIR=$PGT_TARGET/tools/build \
        cargo install cargo-deny --locked --version "=$VERSION" --debug --force --root "$PGT_TARGET/tools"
    rm -rf "$PGT_TARGET/tools/build"
fi
step "Licences, sources, versions"
"$DENY" --offline check bans licenses sources
step "Advisories"
if "$DENY" fetch db 2>/dev/null; then
    "$DENY" check advisories
else
    note "not checked: the advisories cannot be fetched here"
fi
