# shellcheck shell=bash disable=SC2034
# What every script needs: paths, the environment, messages. Sourced, never run.
#
# Layout below target/ (nothing is written elsewhere, except short-lived folders below TMPDIR):
#   target/pgrx/bin   stable wrappers: pg_config and the server's programs, which drop root's rights
#   $PGT_RUN          a private copy of the server tree, so that installing the extension never
#                     touches the system's folders; the server's binaries find their files from where they stand
set -euo pipefail
umask 022

PGT_ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
PGT_TARGET=${CARGO_TARGET_DIR:-$PGT_ROOT/target}
# 15 is Debian's own server. 16, 17 and 18 come as scripts/servers.sh gets them (make test-matrix).
PGT_PG_MAJOR=${PGT_PG_MAJOR:-15}
export PGT_PG_MAJOR
PGT_SYSTEM_LIB=/usr/lib/postgresql/$PGT_PG_MAJOR
PGT_SYSTEM_SHARE=/usr/share/postgresql/$PGT_PG_MAJOR
PGT_PGRX_VERSION=$(sed -n 's/^pgrx = "=\([0-9.]*\)"$/\1/p' "$PGT_ROOT/Cargo.toml")
export CARGO_TARGET_DIR=$PGT_TARGET
export PGRX_HOME=$PGT_TARGET/pgrx
if [ "$PGT_PG_MAJOR" != 15 ]; then PGRX_HOME=$PGT_TARGET/pgrx$PGT_PG_MAJOR; fi
export PGT_BIN=$PGRX_HOME/bin

# cargo-pgrx adds a linker argument to its own builds, and with it a second build of every dependency.
# build.rs passes the same argument to the extension alone.
export CARGO_PGRX_DISABLE_GC_SECTIONS_WORKAROUND=1

# A caller's libpq settings must not lead us to another server.
unset PGHOST PGHOSTADDR PGPORT PGUSER PGDATABASE PGPASSWORD PGPASSFILE PGSERVICE PGSERVICEFILE \
    PGOPTIONS PGSSLMODE PGAPPNAME PGDATA PGCLIENTENCODING PGTZ PSQLRC 2>/dev/null || true

step() { printf '\n==> %s\n' "$*"; }
note() { printf '    %s\n' "$*"; }
die() {
    printf '\nerror: %s\n' "$1" >&2
    shift
    for line in "$@"; do printf '       %s\n' "$line" >&2; done
    exit 1
}

# The operating-system user Postgres runs as: it refuses to run as root.
if [ "$(id -u)" = 0 ]; then PGT_SERVER_USER=postgres; else PGT_SERVER_USER=$(id -un); fi
export PGT_SERVER_USER
# pgrx's tests connect as $USER, which must be the cluster's superuser.
export USER=$PGT_SERVER_USER

as_server_user() {
    if [ "$(id -u)" = 0 ]; then
        setpriv --reuid=postgres --regid=postgres --init-groups "$@"
    else
        "$@"
    fi
}

# Where short-lived folders go: TMPDIR, unless the server's user cannot reach it or a socket's path would
# become too long there (107 bytes at most).
choose_temporary_folder() {
    PGT_TMP=${TMPDIR:-/tmp}
    if [ ${#PGT_TMP} -gt 40 ] || ! as_server_user test -x "$PGT_TMP" 2>/dev/null; then PGT_TMP=/tmp; fi
}

# A private server tree lives in target/run; where the server's user cannot reach that
# (root's home, a mktemp folder), in a folder of this checkout's own below TMPDIR.
find_run_folder() {
    choose_temporary_folder
    mkdir -p "$PGT_TARGET"
    if as_server_user test -x "$PGT_TARGET" 2>/dev/null; then
        PGT_RUN=$PGT_TARGET/run
        PGT_RUN_IS_TEMPORARY=
    else
        local hash
        hash=$(printf '%s' "$PGT_TARGET" | sha256sum | cut -c1-12)
        PGT_RUN=$PGT_TMP/pg_tenancy-run-$hash
        PGT_RUN_IS_TEMPORARY=1
        if [ -e "$PGT_RUN" ] || [ -L "$PGT_RUN" ]; then
            # The name can be guessed: what somebody else put there is not ours to run.
            if [ -L "$PGT_RUN" ] || [ ! -d "$PGT_RUN" ] || [ ! -O "$PGT_RUN" ]; then
                die "$PGT_RUN exists and is not a folder of this user." "Remove it, or set TMPDIR to another folder."
            fi
        fi
    fi
    export PGT_RUN PGT_RUN_IS_TEMPORARY
}

# make_scratch: a folder for one run's clusters, sockets and keys. Everything in it is stopped and removed at exit.
make_scratch() {
    remove_abandoned
    PGT_SCRATCH=$(mktemp -d "$PGT_TMP/pgt.XXXXXX")
    if [ "$(id -u)" = 0 ]; then chown postgres: "$PGT_SCRATCH"; fi
    export PGT_SCRATCH
    echo $$ >"$PGT_SCRATCH/pid"
    trap clean_up EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM
}

stop_clusters_below() {
    local pid_file
    find "$1" -maxdepth 4 -name postmaster.pid 2>/dev/null | while read -r pid_file; do
        "$PGT_BIN/pg_ctl" -D "$(dirname "$pid_file")" -m immediate -w stop >/dev/null 2>&1 || true
    done
}

# The tests' own watchers may be removing the same files at this moment, and rm fails then.
remove_folder() {
    local attempt
    for ((attempt = 0; attempt < 20; attempt++)); do
        if rm -rf "$1" 2>/dev/null; then return; fi
        sleep 0.3
    done
    note "could not be removed: $1"
}

# What a run left that was killed before it could clean up.
remove_abandoned() {
    local folder pid
    for folder in "$PGT_TMP"/pgt.*/; do
        folder=${folder%/}
        if [ "$(stat -c %U "$folder" 2>/dev/null)" != "$PGT_SERVER_USER" ] || [ -e "$folder/kept" ]; then continue; fi
        pid=$(cat "$folder/pid" 2>/dev/null) || continue
        if [ -n "$pid" ] && [ ! -e "/proc/$pid" ]; then
            stop_clusters_below "$folder"
            remove_folder "$folder"
        fi
    done
}

clean_up() {
    local status=$?
    trap - EXIT
    if [ -n "${PGT_SCRATCH:-}" ] && [ -z "${PGT_KEEP:-}" ]; then
        stop_clusters_below "$PGT_SCRATCH"
        remove_folder "$PGT_SCRATCH"
        # A cluster kept by `make demo KEEP=1` still needs its tree.
        if [ -n "${PGT_RUN_IS_TEMPORARY:-}" ] && ! grep -qsxF "$PGT_RUN" "$PGT_TMP"/pgt.*/kept; then
            rm -rf "$PGT_RUN"
        fi
    fi
    exit "$status"
}

# unpack_source PACKAGE FOLDER: the sources of Debian's next release, from the mirror this machine uses, through lists of
# its own: the system's stay as they are. Fails where there is no mirror.
unpack_source() {
    local package=$1 folder=$2 apt=$2.apt mirror options
    mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 2>/dev/null | grep -m 1 -E '/debian/?$') || return 1
    rm -rf "$folder" "$apt"
    mkdir -p "$folder" "$apt/lists/partial" || return 1
    echo "deb-src [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror trixie main" >"$apt/sources.list"
    options=(-q -q -o "Dir::Etc::sourcelist=$apt/sources.list" -o Dir::Etc::sourceparts=- -o "Dir::State::lists=$apt/lists" -o APT::Sandbox::User=root)
    apt-get "${options[@]}" update || return 1
    (cd "$apt" && apt-get "${options[@]}" source --download-only "$package") || return 1
    tar -xf "$apt/$package"_*.orig.tar.* -C "$folder" --strip-components=1 || return 1
    rm -rf "$apt"
}

# One run at a time in a checkout: runs share the private server tree.
take_turn() {
    exec 9>"$PGT_TARGET/.pg_tenancy.lock"
    if ! flock -n 9; then
        note "waiting for another run in this checkout"
        flock 9
    fi
}

# The same flags in every cargo call: another set of features is another build. Naming a test beside the
# library makes cargo-pgrx's own builds share the dependencies of the tests.
PGT_CARGO_FEATURES=(--no-default-features --features "pg$PGT_PG_MAJOR")
PGT_CARGO_TEST_FEATURES=(--no-default-features --features "pg$PGT_PG_MAJOR pg_test")
export PGRX_BUILD_FLAGS="--test install"

# install_extension: builds the extension as it ships (debug profile) and puts it into the private tree.
install_extension() {
    step "Building the extension and installing it into the private server tree"
    (cd "$PGT_ROOT" && cargo pgrx install --pg-config "$PGT_BIN/pg_config" 9>&-)
}

# build_next_version: the library of a made-up version after this one, for tests/upgrade. Another feature is another
# build of this crate alone; the dependencies are shared.
build_next_version() {
    step "Building the library of a made-up next version"
    (cd "$PGT_ROOT" && cargo build --lib --test install --no-default-features --features "pg$PGT_PG_MAJOR made_up_next" 9>&-)
    export PGT_NEXT_LIBRARY=$PGT_TARGET/next_version.so
    cp "$PGT_TARGET/debug/libpg_tenancy.so" "$PGT_NEXT_LIBRARY"
}
