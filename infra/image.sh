#!/bin/sh
# Makes a container's image of a static binary, by buildah, without a daemon. Takes buildah, and root or a user namespace.
#
#     infra/image.sh BINARY ARCHITECTURE FILE    amd64 or arm64; `podman load --input FILE` or `docker load` takes the file
#
# From scratch: the binary, the authorities' certificates, and the folder of the database. Docker's format, since OCI's
# has no health check.
set -eu
binary=$1
architecture=$2
file=$3
version=$("${UPWIRE:-$binary}" --version | cut -d ' ' -f 2)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

if file --brief "$binary" 2>/dev/null | grep -q 'dynamically linked'; then
    echo "image: $binary is not static: from scratch there is no library" >&2
    exit 1
fi
# Drivers for a root file system of their own are not everywhere; a copy is.
build() { buildah --storage-driver vfs --root "$work/root" --runroot "$work/run" "$@"; }
export BUILDAH_FORMAT=docker

mkdir -p "$work/files/etc/ssl/certs" "$work/files/var/lib/upwire" "$work/files/tmp"
install -m 755 "$binary" "$work/files/upwire"
install -m 644 /etc/ssl/certs/ca-certificates.crt "$work/files/etc/ssl/certs/"
# 65532 is what others call nonroot.
echo 'upwire:x:65532:65532::/var/lib/upwire:/nologin' >"$work/files/etc/passwd"
chown 65532:65532 "$work/files/var/lib/upwire"
chmod 700 "$work/files/var/lib/upwire"
chmod 1777 "$work/files/tmp"

container=$(build from --arch "$architecture" scratch)
# Each apart, as a whole folder would change owners.
build copy --quiet "$container" "$work/files/upwire" /upwire >"$work/log"
build copy --quiet "$container" "$work/files/etc" /etc >"$work/log"
build copy --quiet --chmod 1777 "$container" "$work/files/tmp" /tmp >"$work/log"
build copy --quiet --chown 65532:65532 "$container" "$work/files/var/lib/upwire" /var/lib/upwire >"$work/log"
build config --arch "$architecture" --user 65532:65532 --workingdir /var/lib/upwire --volume /var/lib/upwire \
    --env SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt --env UPWIRE_DATABASE=/var/lib/upwire/upwire.db \
    --env UPWIRE_LISTEN=:8080 --port 8080 --entrypoint '["/upwire"]' --cmd serve \
    --healthcheck 'CMD /upwire health' --healthcheck-interval 30s --healthcheck-timeout 5s --healthcheck-start-period 60s \
    --label org.opencontainers.image.title=upwire --label "org.opencontainers.image.version=$version" \
    --label org.opencontainers.image.licenses='MIT OR Apache-2.0' "$container"
rm -f "$file"
build commit --quiet --rm "$container" "docker-archive:$file:upwire:$version" >"$work/log"
