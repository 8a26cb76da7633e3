#!/bin/sh
# Writes the software bill of materials of the released binary: CycloneDX, in JSON.
#
#     infra/sbom.sh FOLDER    as FOLDER/upwire.cdx.json; cargo-cyclonedx is on the PATH
set -eu
cd "$(dirname "$0")/.."
folder=$(cd "$1" && pwd)
host=$(rustc --version --verbose | sed -n 's/^host: //p')

# It writes a file beside each Cargo.toml of the workspace, of which one is of the binary.
name=upwire-sbom-$$
trap 'find . -path ./target -prune -o -name "$name.json" -exec rm {} +' EXIT
cargo cyclonedx --quiet --format json --spec-version 1.5 --target "$host" --override-filename "$name"
mv "cli/$name.json" "$folder/upwire.cdx.json"
