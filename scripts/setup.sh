#!/usr/bin/env bash
# Makes the machine ready: system packages, cargo-pgrx, the private server tree. Idempotent, quick the second time.
# Sourced by the other scripts (which need its PATH and PGT_RUN); can be run alone.
# shellcheck source=scripts/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

PACKAGES="postgresql-15 postgresql-server-dev-15 gcc libc6-dev pkg-config libssl-dev make openssl postgresql-15-wal2json postgresql-15-pgtap sqlsmith"
if [ -n "${PGT_WITH_LINTERS:-}" ]; then PACKAGES="$PACKAGES shellcheck"; fi
if [ -n "${PGT_WITH_PACKAGERS:-}" ]; then PACKAGES="$PACKAGES dpkg-dev lintian binutils xz-utils"; fi
if [ -n "${PGT_WITH_VALGRIND:-}" ]; then PACKAGES="$PACKAGES valgrind"; fi
if [ -n "${PGT_WITH_FUZZERS:-}" ]; then PACKAGES="$PACKAGES g++"; fi

missing_packages() {
    local package
    for package in $PACKAGES; do
        if [ "$(dpkg-query -W -f='${db:Status-Status}' "$package" 2>/dev/null)" != installed ]; then
            printf '%s ' "$package"
        fi
    done
}

install_packages() {
    local missing sudo=
    if ! command -v dpkg-query >/dev/null; then
        die "this is not a Debian system: these scripts know Debian's packages only." \
            "They need the counterparts of: $PACKAGES"
    fi
    missing=$(missing_packages)
    if [ -z "$missing" ]; then
        note "system packages: all there"
        return
    fi
    if [ "$(id -u)" != 0 ]; then
        if ! sudo -n true 2>/dev/null; then
            die "system packages are missing, and this user can neither be root nor use sudo without a password." \
                "Ask for:  apt-get install $missing"
        fi
        sudo=sudo
    fi
    step "Installing system packages: $missing"
    # shellcheck disable=SC2086  # lists of words on purpose
    { $sudo apt-get update && $sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends $missing; } </dev/null ||
        die "installing the system packages failed." "By hand:  apt-get update && apt-get install $missing"
}

find_cargo() {
    if ! command -v cargo >/dev/null && [ -x "${HOME:-}/.cargo/bin/cargo" ]; then PATH="$HOME/.cargo/bin:$PATH"; fi
    if ! command -v cargo >/dev/null; then
        die "cargo was not found." "Get Rust (1.95 or later) from https://rustup.rs, then run this again."
    fi
    if ! cargo --version >/dev/null 2>&1; then die "cargo does not run:" "$(cargo --version 2>&1 | head -n 3)"; fi
}

install_cargo_pgrx() {
    local wanted="cargo-pgrx $PGT_PGRX_VERSION"
    if [ -x "$PGT_TARGET/tools/bin/cargo-pgrx" ]; then PATH="$PGT_TARGET/tools/bin:$PATH"; fi
    export PATH
    if [ "$(cargo pgrx --version 2>/dev/null)" != "$wanted" ]; then
        step "Installing cargo-pgrx $PGT_PGRX_VERSION into target/tools (some minutes, once)"
        CARGO_TARGET_DIR=$PGT_TARGET/tools/build \
            cargo install cargo-pgrx --locked --version "=$PGT_PGRX_VERSION" --debug --force --root "$PGT_TARGET/tools"
        rm -rf "$PGT_TARGET/tools/build"
        PATH="$PGT_TARGET/tools/bin:$PATH"
    fi
    CARGO_PGRX=$(command -v cargo-pgrx)
    export CARGO_PGRX
    note "cargo-pgrx: $PGT_PGRX_VERSION"
}

# The server's programs resolve symbolic links before they look for their files, so bin/ is copied; the rest is linked.
copy_server_tree() {
    local stamp lib=$PGT_RUN/usr/lib/postgresql/$PGT_PG_MAJOR share=$PGT_RUN/usr/share/postgresql/$PGT_PG_MAJOR
    stamp="$PGT_RUN $(stat -c '%Y %s' "$PGT_SYSTEM_LIB/bin/postgres" "$PGT_SYSTEM_LIB/lib" "$PGT_SYSTEM_SHARE/postgres.bki" "$PGT_SYSTEM_SHARE/extension" | tr '\n' ' ')"
    if [ "$(cat "$PGT_RUN/stamp" 2>/dev/null)" != "$stamp" ]; then
        step "Copying the server tree to $PGT_RUN"
        rm -rf "$PGT_RUN"
        mkdir -p "$lib/lib" "$share/extension"
        cp -a "$PGT_SYSTEM_LIB/bin" "$lib/bin"
        ln -s "$PGT_SYSTEM_LIB/lib/"* "$lib/lib/"
        find "$PGT_SYSTEM_SHARE" -mindepth 1 -maxdepth 1 ! -name extension -exec ln -s -t "$share" {} +
        ln -s "$PGT_SYSTEM_SHARE/extension/"* "$share/extension/"
        # A pg_tenancy of the system's own must not shine through.
        rm -f "$lib/lib/pg_tenancy"* "$share/extension/pg_tenancy"*
        printf '%s' "$stamp" >"$PGT_RUN/stamp"
    fi
    note "server: $("$lib/bin/postgres" --version), private tree in $PGT_RUN"
}

write_wrapper() {
    local name=$1
    cat >"$PGT_BIN/$name.new"
    chmod 755 "$PGT_BIN/$name.new"
    mv "$PGT_BIN/$name.new" "$PGT_BIN/$name"
}

# The wrappers' folder never moves, wherever the tree lies: a changed pg_config path would rebuild the bindings.
# $1: the server's programs; $2: the clients'; $3: what both need in their environment; $4: how pg_config's answers change.
write_wrappers() {
    local program server=$1 clients=$2 environment=$3 edit=$4
    mkdir -p "$PGT_BIN"
    if [ "$(cat "$PGT_BIN/.for" 2>/dev/null)" = "$PGT_RUN pg_upgrade" ]; then return; fi
    for program in initdb pg_ctl pg_basebackup pg_upgrade postgres createdb dropdb; do
        write_wrapper "$program" <<EOF
#!/bin/sh
# Written by scripts/setup.sh. Postgres refuses to run as root, so root becomes the server's user here.
# Paths in arguments must be absolute.
cd "\${PGT_FOLDER:-/}" || exit
if [ "\$(id -u)" = 0 ]; then
    exec setpriv --reuid=postgres --regid=postgres --init-groups env HOME=/ $environment '$server/$program' "\$@"
fi
exec env $environment '$server/$program' "\$@"
EOF
    done
    for program in psql pg_dump pg_dumpall pg_restore pg_isready pgbench vacuumdb; do
        write_wrapper "$program" <<EOF
#!/bin/sh
# Written by scripts/setup.sh.
exec env $environment '$clients/$program' "\$@"
EOF
    done
    write_wrapper pg_config <<EOF
#!/bin/sh
# Written by scripts/setup.sh: the server's answers, with the private tree and these wrappers in their place.
$environment '$clients/pg_config' "\$@" | sed -e 's|^\(BINDIR = \)\{0,1\}$clients\$|\1$PGT_BIN|' $edit
EOF
    # With the newest program's name: an older set of wrappers is written anew.
    printf '%s' "$PGT_RUN pg_upgrade" >"$PGT_BIN/.for"
}

write_system_wrappers() {
    write_wrappers "$PGT_RUN$PGT_SYSTEM_LIB/bin" "$PGT_SYSTEM_LIB/bin" '' "\\
    -e 's|^\(PKGLIBDIR = \)\{0,1\}$PGT_SYSTEM_LIB/lib\$|\1$PGT_RUN$PGT_SYSTEM_LIB/lib|' \\
    -e 's|^\(SHAREDIR = \)\{0,1\}$PGT_SYSTEM_SHARE\$|\1$PGT_RUN$PGT_SYSTEM_SHARE|'"
}

# Rewritten only when it must be: the bindings are rebuilt when this file changes.
init_pgrx() {
    if ! grep -qsF "pg$PGT_PG_MAJOR = \"$PGT_BIN/pg_config\"" "$PGRX_HOME/config.toml"; then
        step "Pointing pgrx at the private server tree"
        cargo pgrx init --no-run "--pg$PGT_PG_MAJOR=$PGT_BIN/pg_config"
    fi
}

step "Setting up"
install_packages
find_cargo
find_run_folder
take_turn
install_cargo_pgrx
if [ "$PGT_PG_MAJOR" = 15 ]; then
    copy_server_tree
    write_system_wrappers
else
    # shellcheck source=scripts/servers.sh
    . "$PGT_ROOT/scripts/servers.sh"
fi
init_pgrx
