#!/usr/bin/env bash
# Fuzzes the parsers of tokens, keys and events: scripts/fuzz.sh [seconds for each target, 60 unless told] [target …]
# A finding stays in target/fuzz/artifacts/ and the run fails; what is found interesting stays in target/fuzz/corpus/.
PGT_WITH_FUZZERS=1
# shellcheck source=scripts/setup.sh
. "$(dirname "${BASH_SOURCE[0]}")/setup.sh"

CARGO_FUZZ_VERSION=0.13.1
SECONDS_EACH=${1:-60}
shift || true
TARGETS=("$@")
if [ ${#TARGETS[@]} = 0 ]; then TARGETS=(token jwk event); fi
case $SECONDS_EACH in '' | *[!0-9]*) die "seconds must be a whole number, not '$SECONDS_EACH'." ;; esac

install_cargo_fuzz() {
    if [ -x "$PGT_TARGET/tools/bin/cargo-fuzz" ]; then PATH="$PGT_TARGET/tools/bin:$PATH"; fi
    if [ "$(cargo fuzz --version 2>/dev/null)" = "cargo-fuzz $CARGO_FUZZ_VERSION" ]; then return; fi
    step "Installing cargo-fuzz $CARGO_FUZZ_VERSION into target/tools (once)"
    CARGO_TARGET_DIR=$PGT_TARGET/tools/build \
        cargo install cargo-fuzz --locked --version "=$CARGO_FUZZ_VERSION" --debug --force --root "$PGT_TARGET/tools"
    rm -rf "$PGT_TARGET/tools/build"
    PATH="$PGT_TARGET/tools/bin:$PATH"
}

install_cargo_fuzz
cd "$PGT_ROOT"
for target in "${TARGETS[@]}"; do
    step "Fuzzing $target for $SECONDS_EACH seconds"
    corpus=$PGT_TARGET/fuzz/corpus/$target artifacts=$PGT_TARGET/fuzz/artifacts/$target
    mkdir -p "$corpus" "$artifacts"
    log=$PGT_TARGET/fuzz/$target.log
    # The code has no unsafe of its own; SANITIZER=address watches what it calls (RUSTC_BOOTSTRAP: a stable compiler may).
    RUSTC_BOOTSTRAP=1 cargo fuzz run --sanitizer "${SANITIZER:-none}" --target-dir "$PGT_TARGET/fuzz" "$target" "$corpus" "fuzz/seeds/$target" -- \
        -max_total_time="$SECONDS_EACH" -max_len=9000 -timeout=10 -artifact_prefix="$artifacts/" \
        -verbosity=0 -print_final_stats=1 >"$log" 2>&1 ||
        { tail -n 40 "$log" >&2; die "$target: a finding, or no build (above, and in $log)"; }
    sed -n 's/^stat::\(number_of_executed_units\|average_exec_per_sec\): */    \1: /p' "$log"
done
step "Fuzzing found nothing"
