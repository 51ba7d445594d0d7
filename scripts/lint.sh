#!/usr/bin/env bash
# Everything that can be said about the sources without running them; any finding is fatal.
PGT_WITH_LINTERS=1
# shellcheck source=scripts/setup.sh
. "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
cd "$PGT_ROOT"

step "cargo fmt"
cargo fmt --check
step "clippy"
cargo clippy --all-targets "${PGT_CARGO_TEST_FEATURES[@]}" -- -D warnings
step "rustdoc"
RUSTDOCFLAGS="-D warnings" cargo doc --no-deps --lib --document-private-items "${PGT_CARGO_TEST_FEATURES[@]}"
step "shellcheck"
git ls-files -z --cached --others --exclude-standard -- '*.sh' .ci/run | xargs -0 shellcheck -x
step "No path of somebody's machine in any file"
if git grep --untracked -nIE '(^|[^A-Za-z0-9_./$-])/(root|home|work|Users)/[A-Za-z0-9_.-]+' -- . ':!scripts/lint.sh'; then
    die "the lines above name paths of one machine."
fi
note "lint: nothing found"
