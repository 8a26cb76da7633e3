#!/bin/sh
# The arrows between the crates that deny.toml cannot express, since it does not tell a dev-dependency
# from another, nor what a crate may reach through others; and those between the files of each crate (circles.py).
set -eu
cd "$(dirname "$0")/.."

# Pure: what would bring a runtime, I/O, a clock's thread or chance.
IMPURE="tokio mio socket2 rustix async-io rusqlite libsqlite3-sys hyper axum tokio-xmpp rxml getrandom rand tracing"

failed=0
# forbid CRATE REACHED…: the crate, built for use and not for tests, must not reach these.
forbid() {
    crate=$1
    shift
    tree=$(cargo tree --locked --package "$crate" --edges normal,build --prefix none | cut -d ' ' -f 1)
    for reached in "$@"; do
        if echo "$tree" | grep -qx "$reached"; then
            echo "arrows: $crate must not depend on $reached; see \`cargo tree -p $crate -e normal,build -i $reached\`" >&2
            failed=1
        fi
    done
}
# shellcheck disable=SC2086 # a list of words
forbid push $IMPURE embedded aws functions relay upwire e2e
forbid embedded aws functions relay e2e tokio-xmpp axum
forbid aws embedded functions relay e2e tokio-xmpp axum aws-config
forbid functions embedded relay e2e tokio-xmpp rusqlite aws-config
forbid relay embedded aws functions e2e rusqlite axum
forbid upwire e2e simulator
forbid simulator embedded aws functions e2e rusqlite axum
infra/circles.py || failed=1
[ $failed = 0 ] && echo "arrows: as they should be"
exit $failed
