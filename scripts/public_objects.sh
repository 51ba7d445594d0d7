#!/usr/bin/env bash
# Writes tests/public_objects.txt, the list of public objects, from what the sources make. Look at the diff before you commit it.
export PGT_WRITE_PUBLIC_OBJECTS=1
T=public_objects_are_those_of_the_list exec "$(dirname "${BASH_SOURCE[0]}")/test.sh"
