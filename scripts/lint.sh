#!/usr/bin/env bash
# Everything that can be said about the sources without running them; any finding is fatal.
PGT_WITH_LINTERS=1
# shellcheck source=scripts/setup.sh
. "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
cd "$PGT_ROOT"

for component in fmt clippy; do
    cargo "$component" --version >/dev/null 2>&1 ||
        die "cargo $component is missing." "Get it:  rustup component add rustfmt clippy"
done

step "cargo fmt"
cargo fmt --check
step "clippy"
cargo clippy --all-targets "${PGT_CARGO_TEST_FEATURES[@]}" -- -D warnings
step "rustdoc"
RUSTDOCFLAGS="-D warnings" cargo doc --no-deps --lib --document-private-items "${PGT_CARGO_TEST_FEATURES[@]}"
# What is in the checkout, with or without git.
sources() { find . \( -path ./target -o -path ./.git \) -prune -o -type f "$@" -print0; }

step "shellcheck"
sources \( -name '*.sh' -o -path ./.ci/run -o -path ./demo/sign \) | xargs -0 shellcheck -x
step "No path of somebody's machine in any file"
if sources ! -path ./scripts/lint.sh | xargs -0 grep -nIE '(^|[^A-Za-z0-9_./$-])/(root|home|work|Users)/[A-Za-z0-9_.-]+'; then
    die "the lines above name paths of one machine."
fi
step "No source file of more than 500 lines (but the one list of access, and what is generated)"
if sources ! -path ./sql/access.sql ! -path './sql/pg_tenancy--*.sql' \( -name '*.rs' -o -name '*.sql' -o -name '*.sh' \) | xargs -0 awk 'FNR == 501 { print FILENAME; found = 1 } END { exit !found }'; then
    die "the files above are too long to read in one go: split them by topic."
fi
note "lint: nothing found"
