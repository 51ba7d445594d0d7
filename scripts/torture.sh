#!/usr/bin/env bash
# The long forms of the tests of faults and oddities: ROUNDS of each fault, SMITH seconds of made-up statements, FUZZ
# seconds for each parser under AddressSanitizer, a short run of the database under valgrind, the plain rules under Miri.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
export PGT_ROUNDS=${ROUNDS:-20} PGT_SECONDS=3 PGT_SMITH_SECONDS=${SMITH:-600}
S=faults scripts/test.sh
S=early_release T=early_release_loses scripts/test.sh
S=oddities scripts/test.sh
SANITIZER=address scripts/fuzz.sh "${FUZZ:-60}"
scripts/valgrind.sh
scripts/miri.sh
