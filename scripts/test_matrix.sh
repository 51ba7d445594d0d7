#!/usr/bin/env bash
# Every test on every version of PostgreSQL there is a way to, one after the other; what came of it stands in README.md
# afterwards, between the marks. scripts/test_matrix.sh 16: one version only. S="lib credits": those suites only, whose
# names then stand in the table.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
RESULTS=${CARGO_TARGET_DIR:-target}/matrix
mkdir -p "$RESULTS"
STATUS=0

upgrade() {
    local log=$RESULTS/$1-$2.upgrade
    # In shells of their own: each takes its turn in this checkout.
    PGT_PG_MAJOR=$1 bash -c '. scripts/setup.sh; install_extension; echo "$PGT_BIN" >"$1"' bash "$RESULTS/old_bin" &&
        PGT_PG_MAJOR=$2 PGT_OLD_BIN=$(cat "$RESULTS/old_bin") S=pg_upgrade T='' scripts/test.sh 2>&1 | tee "$log"
}

for version in ${1:-15 16 17 18}; do
    log=$RESULTS/$version.log
    if PGT_PG_MAJOR=$version S=${S:-} T=${T:-} scripts/test.sh 2>&1 | tee "$log"; then result=0; else result=1; fi
    if [ "$result" != 0 ]; then STATUS=1; fi
    # From the version before: of these pairs, both servers come from PostgreSQL's own sources.
    case $version in 17) older=16 ;; 18) older=17 ;; *) older= ;; esac
    if [ -n "$older" ] && [ -z "${S:-}" ]; then upgrade "$older" "$version" || STATUS=1; fi
done

# One line for each version that was ever run here: server, passed and failed inside, passed and failed outside.
row() {
    local version upgraded
    version=$(basename "$1" .log)
    upgraded=$(awk '/^test a_database.* ok$/ { print FILENAME }' "$RESULTS"/*-"$version".upgrade 2>/dev/null |
        sed 's|.*/\([0-9]*\)-.*|from \1|' || true)
    awk -v version="$version" -v upgraded="${upgraded:-not run}" -v all="${#SUITES[@]}" '
        function said(part) { return passed[part] + failed[part] ? sprintf("%d passed, %d failed", passed[part], failed[part]) : "not run" }
        part == 2 && /^ +Running tests\// { sub(/^tests\//, "", $2); sub(/(\/main)?\.rs$/, "", $2); names = names (suites++ ? ", " : "") $2 }
        /server: postgres \(PostgreSQL\)/ && !server { match($0, /PostgreSQL\) [0-9.]+/); server = substr($0, RSTART + 12, RLENGTH - 12) }
        /^==> Unit tests/ { part = 1 }
        /^==> Tests from outside/ { part = 2 }
        /^==> Results/ { part = 0 }
        part && /^test result:/ { passed[part] += $4; failed[part] += $6 }
        END { printf "| %s | %s | %s | %s%s | %s |\n", version, server, said(1), said(2),
              suites && suites < all ? " (" names ")" : "", upgraded }' "$1"
}
SUITES=(tests/*.rs tests/*/main.rs)
ROWS=$(for log in "$RESULTS"/*.log; do row "$log"; done)

ROWS=$ROWS awk '
    /<!-- matrix -->/ { print; print "| PostgreSQL | server tried | unit and in the database | from outside | pg_upgrade |"
                        print "|---|---|---|---|---|"; print ENVIRON["ROWS"]; inside = 1; next }
    /<!-- end of matrix -->/ { inside = 0 }
    !inside' README.md >"$RESULTS/README.md"
cp "$RESULTS/README.md" README.md
printf '%s\n' "$ROWS"
exit "$STATUS"
