#!/usr/bin/env bash
# Every test on every version of PostgreSQL there is a way to, one after the other; what came of it stands in README.md
# afterwards, between the marks. scripts/test_matrix.sh 16: one version only.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
RESULTS=${CARGO_TARGET_DIR:-target}/matrix
mkdir -p "$RESULTS"
STATUS=0

for version in ${1:-15 16 17 18}; do
    log=$RESULTS/$version.log
    if PGT_PG_MAJOR=$version S=${S:-} T=${T:-} scripts/test.sh 2>&1 | tee "$log"; then result=0; else result=1; fi
    if [ "$result" != 0 ]; then STATUS=1; fi
    # Of the tests that need two servers: from 15, which came first.
    if [ "$version" != 15 ] && [ -z "${S:-}" ]; then
        PGT_PG_MAJOR=$version IGNORED=1 S=pg_upgrade scripts/test.sh 2>&1 | tee -a "$log" || STATUS=1
    fi
done

# One line for each version that was ever run here: server, passed and failed inside, passed and failed outside.
row() {
    awk -v version="$(basename "$1" .log)" '
        /server: postgres \(PostgreSQL\)/ && !server { match($0, /PostgreSQL\) [0-9.]+/); server = substr($0, RSTART + 12, RLENGTH - 12) }
        /^==> Unit tests/ { part = 1 }
        /^==> Tests from outside/ { part = 2 }
        /^==> Results/ { part = 0 }
        part && /^test result:/ { passed[part] += $4; failed[part] += $6 }
        END { printf "| %s | %s | %d passed, %d failed | %s |\n", version, server, passed[1], failed[1],
              passed[2] + failed[2] ? sprintf("%d passed, %d failed", passed[2], failed[2]) : "not run" }' "$1"
}
ROWS=$(for log in "$RESULTS"/*.log; do row "$log"; done)

ROWS=$ROWS awk '
    /<!-- matrix -->/ { print; print "| PostgreSQL | server tried | unit and in the database | from outside |"
                        print "|---|---|---|---|"; print ENVIRON["ROWS"]; inside = 1; next }
    /<!-- end of matrix -->/ { inside = 0 }
    !inside' README.md >"$RESULTS/README.md"
cp "$RESULTS/README.md" README.md
printf '%s\n' "$ROWS"
exit "$STATUS"
