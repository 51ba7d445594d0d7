#!/usr/bin/env bash
# Writes tests/public_objects.txt, the list of public objects, and docs/reference from what the sources make. Look at the
# diff before you commit it.
export PGT_WRITE_PUBLIC_OBJECTS=1 PGT_WRITE_REFERENCE=1
T=public_objects_ exec "$(dirname "${BASH_SOURCE[0]}")/test.sh"
