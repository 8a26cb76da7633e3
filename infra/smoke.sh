#!/bin/sh
# What only AWS itself can answer of a stack that runs: a table of verdicts, for less than a cent. See infra/smoke.py.
#
#     infra/smoke.sh STACK [--endpoint URL] [--idle 600] [--close] [--alarms]
set -eu
cd "$(dirname "$0")/.."
python=${UPWIRE_PYTHON:-${CARGO_TARGET_DIR:-target}/venv/bin/python}
[ -x "$python" ] || make "$PWD/target/venv/$(sed -n 's/^SAM := //p' Makefile)"
exec "$python" infra/smoke.py "$@"
