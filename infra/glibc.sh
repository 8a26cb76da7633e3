#!/bin/sh
# Fails where a binary asks for a later glibc than this version.
#
#     infra/glibc.sh BINARY VERSION
set -eu
latest=$(objdump --dynamic-syms "$1" | grep -o 'GLIBC_[0-9.]*' | sed 's/GLIBC_//' | sort --version-sort | tail -n 1)
[ -n "$latest" ] || { echo "glibc: $1 names no version of glibc" >&2 && exit 1; }
if [ "$(printf '%s\n%s\n' "$latest" "$2" | sort --version-sort | tail -n 1)" != "$2" ]; then
    echo "glibc: $1 asks for $latest, later than $2" >&2
    exit 1
fi
echo "$1 asks for glibc $latest at most"
