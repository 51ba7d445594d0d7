#!/usr/bin/env bash
# What the library is made of, as CycloneDX 1.5 on standard output: every crate that is linked in, with its licence and
# the checksum of Cargo.lock. Works offline.
# shellcheck source=scripts/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
cd "$PGT_ROOT"

checksums() {
    awk -F'"' '/^name = / { name = $2 } /^version = / { version = $2 } /^checksum = / { print name, version, $2 }' Cargo.lock
}

linked() {
    cargo tree --offline --edges normal --prefix none --format '{p}|{l}' "${PGT_CARGO_FEATURES[@]}" 9>&- |
        sed -E 's/ \(\*\)//; s/ \([^)]*\)//' | sort -u
}

VERSION=$(sed -n 's/^version = "\(.*\)"$/\1/p' Cargo.toml | head -n 1)
cat <<EOF
{
  "bomFormat": "CycloneDX",
  "specVersion": "1.5",
  "version": 1,
  "metadata": {
    "component": { "type": "library", "name": "pg_tenancy", "version": "$VERSION", "licenses": [ { "license": { "id": "PostgreSQL" } } ] }
  },
  "components": [
EOF
awk -F'|' '
    NR == FNR { split($0, part, " "); checksum[part[1] " v" part[2]] = part[3]; next }
    $1 !~ /^pg_tenancy v/ {
        split($1, crate, " v")
        # Old manifests write a slash for OR.
        gsub("/", " OR ", $2)
        printf "%s    { \"type\": \"library\", \"name\": \"%s\", \"version\": \"%s\", \"purl\": \"pkg:cargo/%s@%s\"", (found++ ? ",\n" : ""), crate[1], crate[2], crate[1], crate[2]
        if ($2 != "") printf ", \"licenses\": [ { \"expression\": \"%s\" } ]", $2
        if ($1 in checksum) printf ", \"hashes\": [ { \"alg\": \"SHA-256\", \"content\": \"%s\" } ]", checksum[$1]
        printf " }"
    }' <(checksums) <(linked)
printf '\n  ]\n}\n'
