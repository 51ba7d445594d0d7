# shellcheck shell=bash
# Other people's implementations that the tests compare ours with or run beside it, below target/peers.
# Sourced by test.sh. Where one cannot be had (no network, no npm) its variable stays unset, and the tests that need it
# say that they are skipped.

# Debian's python3 first: another python on PATH may lack venv.
find_python() {
    local python
    for python in /usr/bin/python3 python3; do
        if "$python" -c 'import venv, ensurepip' 2>/dev/null; then
            printf '%s' "$python"
            return
        fi
    done
}

# peer_python: PGT_PYTHON, a Python with tests/peers/requirements.txt.
peer_python() {
    local folder=$PGT_TARGET/peers/python list=$PGT_ROOT/tests/peers/requirements.txt python
    if ! cmp -s "$list" "$folder/requirements.txt"; then
        python=$(find_python)
        [ -n "$python" ] || return 1
        rm -rf "$folder"
        "$python" -m venv "$folder" &&
            "$folder/bin/pip" install --quiet --disable-pip-version-check -r "$list" &&
            cp "$list" "$folder/requirements.txt" || return 1
    fi
    export PGT_PYTHON=$folder/bin/python
}

# peer_node: PGT_NODE_MODULES, a folder with the packages of tests/peers/package.json.
peer_node() {
    local folder=$PGT_TARGET/peers/node list=$PGT_ROOT/tests/peers/package.json
    command -v node >/dev/null && command -v npm >/dev/null || return 1
    if ! cmp -s "$list" "$folder/package.json"; then
        rm -rf "$folder"
        mkdir -p "$folder" && cp "$list" "$folder/package.json" &&
            (cd "$folder" && npm install --silent --no-audit --no-fund --ignore-scripts) ||
            { rm -rf "$folder"; return 1; }
    fi
    export PGT_NODE_MODULES=$folder/node_modules
}

# peer_pgbouncer: PGT_PGBOUNCER, Debian's PgBouncer unpacked, not installed: the package would start a service.
peer_pgbouncer() {
    local folder=$PGT_TARGET/peers/pgbouncer
    # Its script names this folder: in a checkout that was moved or copied it is made anew.
    if ! "$folder/pgbouncer" --version >/dev/null 2>&1; then
        rm -rf "$folder"
        mkdir -p "$folder/packages" || return 1
        (cd "$folder/packages" && apt-get download -q -q pgbouncer libc-ares2 libevent-2.1-7 2>/dev/null) || return 1
        local package
        for package in "$folder"/packages/*.deb; do dpkg -x "$package" "$folder/tree" || return 1; done
        rm -rf "$folder/packages"
        cat >"$folder/pgbouncer" <<EOF
#!/bin/sh
# Written by scripts/peers.sh.
LD_LIBRARY_PATH=\$(echo '$folder'/tree/usr/lib/*/) exec '$folder/tree/usr/sbin/pgbouncer' "\$@"
EOF
        chmod 755 "$folder/pgbouncer"
    fi
    "$folder/pgbouncer" --version >/dev/null 2>&1 || return 1
    export PGT_PGBOUNCER=$folder/pgbouncer
}

step "Implementations to compare with"
if peer_python 9>&-; then note "python: $(tr '\n' ' ' <"$PGT_ROOT/tests/peers/requirements.txt")"; else note "python: not to be had; tests that need it are skipped"; fi
if peer_node 9>&-; then note "node: jose"; else note "node: not to be had; tests that need it are skipped"; fi
if peer_pgbouncer 9>&-; then note "pgbouncer: $("$PGT_PGBOUNCER" --version | head -n 1)"; else note "pgbouncer: not to be had; tests that need it are skipped"; fi
