#!/bin/sh
# The whole path on this machine: a Prosody, `upwire serve`, a distributor, and a push by curl.
#
#     infra/demo.sh         starts all, pushes once, stops all
#     KEEP=1 infra/demo.sh  leaves all running
#     infra/demo.sh stop    stops all that was left running
#
# Each run has a folder of its own below target/demo, and ports of its own on loopback.
set -eu
cd "$(dirname "$0")/.."
target=$(mkdir -p "${CARGO_TARGET_DIR:-target}/demo" && cd "${CARGO_TARGET_DIR:-target}" && pwd)

say() { printf '\n==> %s\n' "$*"; }

# The processes of a run, newest first. One counts only while it still works in the run's folder: a
# process id may long be somebody else's.
processes() {
    for file in "$1"/*.pid; do
        [ -e "$file" ] || continue
        pid=$(cat "$file")
        case $(readlink "/proc/$pid/cwd" 2>/dev/null) in "$1" | "$1"/*) echo "$pid" ;; esac
    done | sort -rn
}

# Asks all processes of a run to end, and kills what has not ended after 15 seconds.
end() {
    for pid in $(processes "$1"); do kill "$pid" 2>/dev/null || true; done
    tries=150
    while [ -n "$(processes "$1")" ] && [ $tries -gt 0 ]; do
        sleep 0.1
        tries=$((tries - 1))
    done
    for pid in $(processes "$1"); do kill -KILL "$pid" 2>/dev/null || true; done
}

if [ "${1:-}" = stop ]; then
    stopped=0
    for run in "$target"/demo/*; do
        # A run whose script still works stops by itself.
        if [ -e "$run/kept" ] || { [ -d "$run" ] && [ ! -d "/proc/${run##*/}" ]; }; then
            end "$run"
            rm -rf "$run"
            echo "Stopped the demo in $run."
            stopped=1
        fi
    done
    [ $stopped = 1 ] || echo "No demo was left running."
    exit 0
fi

infra/packages.sh prosody curl gcc libc6-dev
if ! command -v cargo >/dev/null; then
    echo "upwire: cargo is missing; install Rust as https://rustup.rs says" >&2
    exit 1
fi
say "Building upwire (a few minutes the first time)"
cargo build --locked --package cli
PATH="$target/debug:$PATH"

# What earlier runs left for whoever wanted to read their logs.
for old in "$target"/demo/*; do
    [ ! -d "$old" ] || [ -d "/proc/${old##*/}" ] || [ -n "$(processes "$old")" ] || rm -rf "$old"
done
folder="$target/demo/$$"
mkdir -p "$folder/prosody/localhost/accounts"

current=
finish() {
    status=$?
    trap '' HUP INT TERM
    if [ $status -ne 0 ]; then
        # What was started last may not have come as far as its folder or its pid file.
        [ -z "${!:-}" ] || kill "$!" 2>/dev/null || true
        end "$folder"
        say "The demo has not come to its end; everything it started is stopped. The ends of the logs:"
        for log in "$folder"/*.log; do
            [ -e "$log" ] && echo "--- $log" && tail -n 12 "$log"
        done
    elif [ "${KEEP:-}" != 1 ]; then
        end "$folder"
        rm -rf "$folder"
        say "Everything is stopped. \`make demo KEEP=1\` leaves it running."
    fi
    exit $status
}
trap finish EXIT
trap 'exit 129' HUP
trap 'exit 130' INT
trap 'exit 143' TERM

# start NAME COMMAND…: runs it in the background, in a session of its own: Ctrl-C comes to this script alone.
start() {
    current=$1
    shift
    (cd "$folder" && exec setsid "$@") >"$folder/$current.log" 2>&1 </dev/null &
    echo $! >"$folder/$current.pid"
}

# wait_for WHAT COMMAND…: until the command succeeds, for 30 seconds at most.
wait_for() {
    what=$1
    shift
    tries=300
    until "$@" >/dev/null 2>&1; do
        tries=$((tries - 1))
        if [ $tries -eq 0 ]; then
            echo "upwire: not within 30 seconds: $what" >&2
            exit 1
        elif ! readlink "/proc/$(cat "$folder/$current.pid")/cwd" >/dev/null; then
            echo "upwire: $current has ended while the demo waited: $what" >&2
            exit 1
        fi
        sleep 0.1
    done
}

free_ports() {
    python3 -c '
import random, socket
held = []
while len(held) < 4:
    s = socket.socket()
    try: s.bind(("127.0.0.1", random.randrange(20000, 32000)))
    except OSError: continue
    held.append(s)
print(*(s.getsockname()[1] for s in held))'
}
ports=$(free_ports)
read -r c2s component http admin <<PORTS
$ports
PORTS
secret=$(upwire keygen)
password=$(upwire keygen)
endpoint_is_there() { grep -q '^endpoint ' "$folder/distributor.log"; }

say "Starting Prosody, an XMPP server, with the account juliet@localhost (folder: $folder)"
echo "return { [\"password\"] = \"$password\" };" >"$folder/prosody/localhost/accounts/juliet.dat"
start prosody env UPWIRE_PROSODY_DATA="$folder/prosody" UPWIRE_PROSODY_C2S_PORT="$c2s" \
    UPWIRE_PROSODY_COMPONENT_PORT="$component" UPWIRE_COMPONENT_SECRET="$secret" \
    prosody --config "$PWD/infra/prosody/prosody.cfg.lua" -F
wait_for "Prosody listens" grep -q "Activated service 'c2s' on .*:$c2s" "$folder/prosody.log"

say "Starting the push server: upwire serve, at http://127.0.0.1:$http, as the component notify.localhost"
start serve env UPWIRE_PUBLIC_URL="http://127.0.0.1:$http" UPWIRE_LISTEN="127.0.0.1:$http" \
    UPWIRE_ADMIN_LISTEN="127.0.0.1:$admin" UPWIRE_DATABASE="$folder/upwire.db" \
    UPWIRE_COMPONENT=notify.localhost UPWIRE_COMPONENT_SECRET="$secret" \
    UPWIRE_XMPP_SERVER="127.0.0.1:$component" upwire serve
wait_for "upwire serve is ready" curl --fail --silent "http://127.0.0.1:$admin/readyz"

say "Logging in as juliet@localhost and registering, as a phone would: upwire distributor"
start distributor env UPWIRE_PASSWORD="$password" upwire distributor --jid juliet@localhost \
    --server "127.0.0.1:$c2s" --plaintext --push-server notify.localhost
wait_for "the distributor prints its endpoint" endpoint_is_there
endpoint=$(sed -n 's/^endpoint //p' "$folder/distributor.log")
echo "The endpoint, which an application gives to its server:"
echo "  $endpoint"

say "Pushing, as an application server would"
echo "  curl --include --header 'TTL: 60' --data 'Hello from curl' $endpoint"
curl --silent --show-error --include --max-time 10 --header 'TTL: 60' --data 'Hello from curl' "$endpoint" \
    >"$folder/answer"
sed 's/^/  /' "$folder/answer"
grep -q '^HTTP/1.1 201 ' "$folder/answer" || { echo "upwire: the push was not accepted" >&2 && exit 1; }
wait_for "the push arrives" grep -q '^push,.*Hello from curl' "$folder/distributor.log"

say "The push has arrived. What the distributor printed:"
sed 's/^/  /' "$folder/distributor.log"

if [ "${KEEP:-}" = 1 ]; then
    touch "$folder/kept"
    say "All of it goes on running. What to try next:"
    cat <<NEXT
  another push:            curl --data 'Hello again' $endpoint
  the distributor's output: tail -f $folder/distributor.log
  health and metrics:       curl http://127.0.0.1:$admin/metrics
  the server's log:         tail -f $folder/serve.log
  stop all:                 make demo-stop
NEXT
fi
