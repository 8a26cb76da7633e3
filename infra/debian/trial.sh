#!/bin/sh
# Installs the Debian package in a clean root, configures it, pushes, upgrades it with data, removes and purges it. Takes root.
#
#     infra/debian/trial.sh    or `make package-trial`
set -eu
cd "$(dirname "$0")/../.."
demo="package-trial"
never_kept=1
. infra/demo-parts.sh

fail() {
    echo "package-trial: $*" >&2
    exit 1
}
[ "$(id -u)" = 0 ] || fail "a clean root takes root: run it by sudo"
build upwire
open_folder

packages="$target/debian/packages"
rm -rf "$packages"
for version in 0.0.9-1 0.1.0-1; do infra/debian/package.sh dev "$packages" $version; done
clean="$target/debian/clean.tar"
say "Unpacking a clean Debian"
[ -e "$clean" ] || mmdebstrap --quiet --variant=minbase --include=ca-certificates,adduser,debconf,procps bookworm "$clean"
root="$folder/root"
mkdir "$root"
tar --extract --file "$clean" --directory "$root" --exclude './dev/*'
[ -e "$root/dev/null" ] || mknod -m 666 "$root/dev/null" c 1 3
[ -e "$root/dev/urandom" ] || mknod -m 444 "$root/dev/urandom" c 1 9

inside() { env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin DEBIAN_FRONTEND=noninteractive chroot "$root" "$@"; }
has() { [ "$(inside stat --format '%U:%G %a' "$1")" = "$2" ] || fail "$1 is $(inside stat --format '%U:%G %a' "$1"), not $2"; }
# What the unit does: the same user, folder, settings and variables.
serve() {
    start serve env -i PATH=/usr/sbin:/usr/bin:/bin chroot --userspec=upwire:upwire "$root" /bin/sh -c '
        cd /var/lib/upwire && set -a && . /etc/upwire/upwire.env && umask 077 &&
        UPWIRE_COMPONENT_SECRET_FILE=/run/component-secret UPWIRE_DATABASE=/var/lib/upwire/upwire.db exec /usr/bin/upwire serve'
    wait_for "upwire serve is ready" curl --fail --silent "http://127.0.0.1:$admin/readyz"
}
stop_serve() {
    pid=$(cat "$folder/serve.pid")
    kill "$pid"
    wait "$pid" || fail "upwire serve did not stop in good order"
}

say "Installing the version before"
cp "$packages"/*.deb "$root/root/"
inside sh -c 'dpkg --install /root/upwire_0.0.9-1_*.deb' 2>&1 | tee "$folder/install.log"
for told in prosody.cfg.lua ejabberd.yml UPWIRE_PUBLIC_URL; do
    grep -q "$told" "$folder/install.log" || fail "the installation does not speak of $told"
done
has /var/lib/upwire "upwire:upwire 700"
has /etc/upwire "root:upwire 750"
has /etc/upwire/component-secret "root:upwire 640"
inside test -s /usr/share/man/man1/upwire-serve.1.gz -o ! -d /usr/share/man/man1 || fail "there is no man page"
inside test -s /usr/share/bash-completion/completions/upwire || fail "there are no completions"
inside upwire --version
if command -v systemd-analyze >/dev/null; then
    for unit in upwire upwire-relay; do
        sed "s|=/usr/bin/upwire|=$root/usr/bin/upwire|" "$root/lib/systemd/system/$unit.service" >"$folder/$unit.service"
        systemd-analyze verify --man=no "$folder/$unit.service" || fail "$unit.service is wrong"
    done
else
    echo "==> LEFT OUT: systemd-analyze is not here; the units are not checked"
fi
inside sh -c '. /etc/upwire/upwire.env; upwire serve; [ $? = 64 ]' || fail "settings that are empty are not refused as such"

say "Configuring it"
ports=$(free_ports 4)
read -r c2s component http admin <<PORTS
$ports
PORTS
start_prosody
printf '%s\n' "$component_secret" >"$root/etc/upwire/component-secret"
# As systemd hands it over.
install -m 600 "$root/etc/upwire/component-secret" "$root/run/component-secret"
chown "$(inside id -u upwire)" "$root/run/component-secret"
sed -i "s|^UPWIRE_PUBLIC_URL=.*|UPWIRE_PUBLIC_URL=http://127.0.0.1:$http|; s|^UPWIRE_COMPONENT=.*|UPWIRE_COMPONENT=notify.localhost|;
    s|^#UPWIRE_XMPP_SERVER=.*|UPWIRE_XMPP_SERVER=127.0.0.1:$component|; s|^#UPWIRE_LISTEN=.*|UPWIRE_LISTEN=127.0.0.1:$http|;
    s|^#UPWIRE_ADMIN_LISTEN=.*|UPWIRE_ADMIN_LISTEN=127.0.0.1:$admin|" "$root/etc/upwire/upwire.env"
serve
push_to_a_distributor

if promtool=$(PATH="$target/tools/bin:$PATH" command -v promtool); then
    curl --silent --fail "http://127.0.0.1:$admin/metrics" | "$promtool" check metrics || fail "metrics have odd names"
else
    echo "==> LEFT OUT: promtool is not here; the names of the metrics are not checked"
fi

say "Upgrading it, with a copy of its data before"
inside chroot --userspec=upwire:upwire / upwire backup --database /var/lib/upwire/upwire.db /var/lib/upwire/before.db
stop_serve
inside sh -c 'dpkg --install /root/upwire_0.1.0-1_*.deb'
grep -q "^UPWIRE_COMPONENT=notify.localhost" "$root/etc/upwire/upwire.env" || fail "the upgrade has changed the settings"
[ "$(cat "$root/etc/upwire/component-secret")" = "$component_secret" ] || fail "the upgrade has changed the secret"
serve
curl --silent --fail --max-time 10 --data 'After the upgrade' "$endpoint" || fail "the endpoint has not survived the upgrade"
current=distributor
wait_for "the push after the upgrade arrives" grep -q '^push,.*After the upgrade' "$folder/distributor.log"
stop_serve

say "Removing and purging it"
inside dpkg --remove upwire
[ ! -e "$root/usr/bin/upwire" ] || fail "the binary is left"
[ -s "$root/var/lib/upwire/upwire.db" ] && [ -s "$root/etc/upwire/component-secret" ] || fail "a removal took data"
inside dpkg --purge upwire
[ -s "$root/var/lib/upwire/upwire.db" ] || fail "a purge that nobody answered took the database"
[ ! -e "$root/etc/upwire" ] || fail "a purge has left settings"
inside sh -c 'dpkg --install /root/upwire_0.1.0-1_*.deb' >/dev/null 2>&1
echo 'upwire upwire/remove-database boolean true' | inside debconf-set-selections
inside dpkg --purge upwire
[ ! -e "$root/var/lib/upwire" ] || fail "a purge that was to take the database has left it"
say "The package installs, works, upgrades, and goes"
