#!/usr/bin/env bash
# Runs every test: unit and in-database (cargo test --lib), then from outside (tests/*.rs).
# PGT_PG_MAJOR=16: on another version of the server. PGT_OLD_BIN: an older one beside it, for tests/pg_upgrade.rs alone.
# T=name runs only the tests whose name contains it; S=lib only the first kind, S=file only those of tests/file.rs
# (several: S="lib credits isolation");
# SHOW=1 shows what else passing tests print; seeds, figures and skipped tests are always seen.
# shellcheck source=scripts/setup.sh
. "$(dirname "${BASH_SOURCE[0]}")/setup.sh"

FILTER=${T:-}
SUITE=${S:-}
make_scratch
export CARGO_PGRX_TEST_PGDATA=$PGT_SCRATCH/in-database
as_server_user mkdir -p "$CARGO_PGRX_TEST_PGDATA"
export PGT_MASTER_KEY_FILE=$PGT_SCRATCH/master.key
as_server_user sh -c 'umask 077; openssl rand -base64 32 >"$1"' sh "$PGT_MASTER_KEY_FILE"
cd "$PGT_ROOT"
LOG=$PGT_SCRATCH/log
: >"$LOG"
STATUS=0

run_tests() {
    local title=$1
    shift
    step "$title"
    printf '## %s\n' "$title" >>"$LOG"
    # No descriptor of the lock goes to cargo: a server that outlives a run must not hold it.
    if ! "$@" ${FILTER:+"$FILTER"} ${SHOW:+-- --nocapture} 9>&- 2>&1 | tee -a "$LOG"; then STATUS=1; fi
}

OUTSIDE=()
read -ra SUITES <<<"${SUITE:-*}"
for suite in "${SUITES[@]}"; do if [ "$suite" != lib ]; then OUTSIDE+=(--test "$suite"); fi; done
case " $SUITE " in '  ' | *' lib '*)
    run_tests "Unit tests and tests inside the database" \
        cargo test --no-fail-fast "${PGT_CARGO_TEST_FEATURES[@]}" --lib
    ;;
esac
if [ ${#OUTSIDE[@]} != 0 ]; then
    case " $SUITE " in '  ' | *' upgrade '*) build_next_version ;; esac
    install_extension
    # shellcheck source=scripts/peers.sh
    . "$PGT_ROOT/scripts/peers.sh"
    run_tests "Tests from outside" \
        cargo test --no-fail-fast "${PGT_CARGO_FEATURES[@]}" "${OUTSIDE[@]}" ${PGT_OLD_BIN:+-- --ignored}
fi

step "Results"
grep -E '^(## | +Running |test result:|test .* FAILED$|error: )' "$LOG" | sed -E 's/^## //; s/ \(target[^)]*\)//' || true
awk '/^test result:/ { passed += $4; failed += $6; ignored += $8 }
    END { printf "\nall: %d passed; %d failed; %d ignored\n", passed, failed, ignored }' "$LOG"
SKIPPED=$(grep -o 'skipped: .*' "$LOG" | sort | uniq -c || true)
if [ -n "$SKIPPED" ]; then printf '\nSkipped, and counted above as passed:\n%s\n' "$SKIPPED"; fi
if [ "$STATUS" != 0 ]; then die "some tests failed."; fi
