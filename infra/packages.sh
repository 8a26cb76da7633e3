#!/bin/sh
# Installs the Debian packages that are named and missing. Their services neither start nor come back at
# the next boot: whoever needs one runs it by hand, in a folder of its own.
#
#     infra/packages.sh prosody ejabberd
set -eu

SYSTEM_SERVICES="prosody.service ejabberd.service epmd.service epmd.socket stunnel4.service"
POLICY=/usr/sbin/policy-rc.d

# What each package is for, and whether it is there already, from Debian or from elsewhere.
purpose() {
    case $1 in
    prosody) echo "an XMPP server" ;;
    prosody-modules) echo "Prosody's own push server, to compare with" ;;
    ejabberd) echo "another XMPP server" ;;
    stunnel4) echo "TLS in front of Prosody's port for components" ;;
    chromium | chromium-driver) echo "a browser, for the page of the server" ;;
    curl) echo "sends HTTP requests" ;;
    buildah) echo "makes a container's image, without a daemon" ;;
    mmdebstrap) echo "unpacks a clean Debian" ;;
    ca-certificates) echo "the authorities that sign certificates" ;;
    gcc | libc6-dev) echo "compiles and links C for Rust" ;;
    python3-venv) echo "makes the Python environments of the tools" ;;
    npm) echo "installs the emulators that are written in JavaScript" ;;
    openjdk-17-jdk-headless) echo "runs LocalStack's DynamoDB" ;;
    *) echo "packages.sh does not know $1" >&2 && return 1 ;;
    esac
}
is_there() {
    case $1 in
    prosody | curl | gcc | npm | chromium | buildah | mmdebstrap) command -v "$1" ;;
    chromium-driver) command -v chromedriver ;;
    ca-certificates) [ -e /etc/ssl/certs/ca-certificates.crt ] ;;
    prosody-modules) ls -d /usr/lib/prosody/modules/mod_unified_push* ;;
    ejabberd) command -v erl && ls -d /usr/lib/*/ejabberd-* ;;
    stunnel4) command -v stunnel ;;
    libc6-dev) ls /usr/include/stdio.h ;;
    openjdk-17-jdk-headless) command -v javac ;;
    python3-venv) python3 -c 'import ensurepip' ;;
    esac >/dev/null 2>&1
}
stop() {
    echo "upwire: $*" >&2
    exit 1
}

missing=
for package in "$@"; do
    what=$(purpose "$package")
    is_there "$package" && continue
    echo "==> $package is missing ($what): installing it from Debian"
    missing="$missing $package"
done
[ -n "$missing" ] || exit 0

mend="apt-get install --no-install-recommends$missing"
command -v apt-get >/dev/null || stop "missing:$missing, and there is no apt-get here; install them by hand"
if [ "$(id -u)" = 0 ]; then
    as_root=
elif sudo -n true 2>/dev/null; then
    as_root="sudo -n"
else
    stop "missing:$missing, and this user may not install packages; run: sudo $mend"
fi

# Debian asks this file before it starts a service. One that is there already is the machine's own.
if [ ! -e $POLICY ]; then
    trap '$as_root rm -f $POLICY' EXIT
    trap 'exit 130' HUP INT TERM
    printf '#!/bin/sh\nexit 101\n' | $as_root tee $POLICY >/dev/null
    $as_root chmod 755 $POLICY
fi
new_services=
for service in $SYSTEM_SERVICES; do
    [ -e "/lib/systemd/system/$service" ] || new_services="$new_services $service"
done

log=$(mktemp)
install() {
    $as_root env DEBIAN_FRONTEND=noninteractive apt-get -q -y -o DPkg::Lock::Timeout=120 "$@" >>"$log" 2>&1 </dev/null
}
# shellcheck disable=SC2086 # a list of words
if ! { install update && install install --no-install-recommends $missing; }; then
    tail -n 15 "$log" >&2
    stop "apt-get could not install$missing (its log: $log); mend that, or run: sudo $mend"
fi
rm -f "$log"

for service in $new_services; do
    [ -e "/lib/systemd/system/$service" ] || continue
    if [ -d /run/systemd/system ]; then
        $as_root systemctl --quiet disable --now "$service" || true
    elif command -v systemctl >/dev/null; then
        $as_root systemctl --quiet disable "$service" || true
    fi
    [ ! -e "/etc/init.d/${service%.service}" ] || $as_root update-rc.d "${service%.service}" disable || true
done
echo "==> installed:$missing (no service was started)"
