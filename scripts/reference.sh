#!/usr/bin/env bash
# Writes docs/reference/*.md from the catalog's comments and the sources. Look at the diff before you commit it.
export PGT_WRITE_REFERENCE=1
T=public_objects_stand_in_the_reference S=reference exec "$(dirname "${BASH_SOURCE[0]}")/test.sh"
