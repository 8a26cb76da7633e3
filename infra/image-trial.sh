#!/bin/sh
# Makes the container's image of a static binary, unpacks it, and runs it as the image says, with nothing else in its root,
# beside a Prosody with the configuration of infra/compose.yaml. Takes root, buildah and Prosody.
#
#     infra/image-trial.sh BINARY ARCHITECTURE    or `make image-trial`
set -eu
cd "$(dirname "$0")/.."
demo="image-trial"
never_kept=1
. infra/demo-parts.sh

fail() {
    echo "image-trial: $*" >&2
    exit 1
}
[ "$(id -u)" = 0 ] || fail "to run in another root takes root: run it by sudo"
binary=$1
architecture=$2
PATH="$(dirname "$binary"):$PATH"
open_folder

say "Making the image"
infra/image.sh "$binary" "$architecture" "$folder/image.tar"
mkdir "$folder/image" "$folder/root"
tar --extract --file "$folder/image.tar" --directory "$folder/image"
# The value of a path of the image's configuration, a word a line.
of_image() {
    python3 -c '
import json, pathlib, sys
folder = pathlib.Path(sys.argv[1])
manifest = json.loads((folder / "manifest.json").read_text())[0]
value = {"layers": manifest["Layers"], "config": json.loads((folder / manifest["Config"]).read_text())}
for name in sys.argv[2].split("."):
    value = value[name]
print(*(value if isinstance(value, list) else [value]), sep="\n")' "$folder/image" "$1"
}
for layer in $(of_image layers); do tar --extract --file "$folder/image/$layer" --directory "$folder/root" --same-owner; done
[ "$(of_image config.architecture)" = "$architecture" ] || fail "it is for $(of_image config.architecture)"
user=$(of_image config.config.User)
[ "$user" = 65532:65532 ] || fail "it runs as $user"
health=$(of_image config.config.Healthcheck.Test | tail -n +2)
[ -n "$health" ] || fail "it has no health check"
files=$(cd "$folder/root" && find . -type f | sort | tr '\n' ' ')
[ "$files" = "./etc/passwd ./etc/ssl/certs/ca-certificates.crt ./upwire " ] || fail "it holds $files"

say "Prosody, as infra/compose.yaml has it"
ports=$(free_ports 5)
read -r c2s s2s component http admin <<PORTS
$ports
PORTS
mkdir "$folder/prosody"
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 3 -keyout "$folder/prosody/localhost.key" \
    -out "$folder/prosody/localhost.crt" -subj /CN=localhost -addext subjectAltName=DNS:localhost \
    -addext basicConstraints=critical,CA:FALSE 2>/dev/null
upwire keygen >"$folder/root/component-secret"
chown -R prosody "$folder/prosody"
chmod 755 "$runs" "$folder" "$folder/root"
chmod 444 "$folder/root/component-secret"
settings="PROSODY_DATA=$folder/prosody PROSODY_CERTIFICATES=$folder/prosody PROSODY_DOMAIN=localhost \
    PROSODY_COMPONENT=notify.localhost PROSODY_SECRET_FILE=$folder/root/component-secret PROSODY_C2S_PORT=$c2s \
    PROSODY_S2S_PORT=$s2s PROSODY_COMPONENT_PORT=$component PROSODY_COMPONENT_INTERFACE=127.0.0.1"
cp infra/prosody/compose.cfg.lua "$folder/prosody/prosody.cfg.lua"
password=$(upwire keygen)
as_prosody="setpriv --reuid prosody --regid prosody --init-groups env $settings"
$as_prosody prosodyctl --config "$folder/prosody/prosody.cfg.lua" register juliet localhost "$password"
# shellcheck disable=SC2086 # a list of words
start prosody $as_prosody prosody --config "$folder/prosody/prosody.cfg.lua" -F
wait_for "Prosody listens" grep -q "Activated service 'c2s'" "$folder/prosody.log"

say "The image, as its configuration says"
# shellcheck disable=SC2046 # a list of words
start image env -i $(of_image config.config.Env | grep -v '^UPWIRE_LISTEN=') UPWIRE_PUBLIC_URL="http://127.0.0.1:$http" \
    UPWIRE_COMPONENT=notify.localhost UPWIRE_COMPONENT_SECRET_FILE=/component-secret \
    UPWIRE_XMPP_SERVER="127.0.0.1:$component" UPWIRE_LISTEN="127.0.0.1:$http" UPWIRE_ADMIN_LISTEN="127.0.0.1:$admin" \
    PATH="$PATH" chroot --userspec="$user" "$folder/root" $(of_image config.config.Entrypoint) $(of_image config.config.Cmd)
# shellcheck disable=SC2086 # a list of words
wait_for "its health check says yes" env -i PATH="$PATH" UPWIRE_ADMIN_LISTEN="127.0.0.1:$admin" \
    chroot --userspec="$user" "$folder/root" $health --ready

start distributor env SSL_CERT_FILE="$folder/prosody/localhost.crt" UPWIRE_PASSWORD="$password" upwire distributor \
    --jid juliet@localhost --server "localhost:$c2s" --push-server notify.localhost
wait_for "the distributor prints its endpoint" grep -q '^endpoint ' "$folder/distributor.log"
endpoint=$(sed -n 's/^endpoint //p' "$folder/distributor.log")
curl --silent --fail --max-time 10 --data 'Hello from a container' "$endpoint"
wait_for "the push arrives" grep -q '^push,.*Hello from a container' "$folder/distributor.log"
say "The image holds one binary, runs as $user, is healthy, and carries a push"
