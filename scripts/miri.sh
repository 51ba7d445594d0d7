#!/usr/bin/env bash
# The tests of the plain Rust rules under Miri, where a nightly compiler has it (rustup component add miri rust-src
# --toolchain nightly). Rules that call the cryptography library or Postgres cannot run in it: the former are fuzzed under
# AddressSanitizer, the latter run under valgrind (make torture).
# shellcheck source=scripts/setup.sh
. "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
if ! cargo +nightly miri --version >/dev/null 2>&1; then
    note "skipped: this machine has no nightly compiler with Miri"
    exit 0
fi
cd "$PGT_ROOT"
RULES=(
    schema::installed limits::policy limits::gcra::tests::a_burst limits::gcra::tests::a_changed
    identity::jose::base64url identity::jose::json identity::jose::header identity::jose::kind
    identity::tenant identity::permissions identity::request
    metering::openmetrics metering::run_units outbox::contract::text outbox::contract::lax
    credits::amount credits::period credits::entry_id
)
step "Plain rules under Miri"
# One thread's stack and clock are all they need; the first build takes minutes.
CARGO_TARGET_DIR=$PGT_TARGET/miri MIRIFLAGS=-Zmiri-disable-isolation PROPTEST_CASES=4 \
    cargo +nightly miri test "${PGT_CARGO_TEST_FEATURES[@]}" --lib -- "${RULES[@]}" 9>&-
