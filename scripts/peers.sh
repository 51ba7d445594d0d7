# shellcheck shell=bash
# Other people's implementations that the tests compare ours with, at pinned versions, below target/peers.
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

step "Implementations to compare with"
if peer_python 9>&-; then note "python: $(tr '\n' ' ' <"$PGT_ROOT/tests/peers/requirements.txt")"; else note "python: not to be had; tests that need it are skipped"; fi
if peer_node 9>&-; then note "node: jose"; else note "node: not to be had; tests that need it are skipped"; fi
