#!/bin/sh
# Makes the Debian package of a binary that is built: with man pages, completions, units and settings.
#
#     infra/debian/package.sh PROFILE FOLDER [VERSION [BINARY]]    dev or release; the package goes to FOLDER
#
# BINARY is one that was built elsewhere than where cargo puts it for this machine.
set -eu
cd "$(dirname "$0")/../.."
profile=$1
mkdir -p "$2"
folder=$(cd "$2" && pwd)
target=$(mkdir -p "${CARGO_TARGET_DIR:-target}" && cd "${CARGO_TARGET_DIR:-target}" && pwd)
# To try it out, the package need not be small.
case $profile in dev) binaries="$target/debug" fast=--fast ;; *) binaries="$target/$profile" fast= ;; esac

binary=${4:-$binaries/upwire}

rm -rf "$target/package"
mkdir -p "$target/package/man" "$target/package/completions"
"$binary" assets "$target/package/man" "$target/package/completions"
gzip -9n "$target"/package/man/*.1
sed 's|/usr/local/bin/upwire|/usr/bin/upwire|' infra/relay/upwire-relay.service >"$target/package/upwire-relay.service"
cp "$binary" "$target/package/upwire"
strip "$target/package/upwire"
PATH="$target/tools/bin:$PATH" cargo deb --quiet --no-build --no-strip --profile "$profile" --package upwire \
    --output "$folder/" $fast ${3:+--deb-version "$3"}
