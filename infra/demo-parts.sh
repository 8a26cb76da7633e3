# shellcheck shell=sh
# What the demonstrations have in common: processes in a folder of the run's own below target/, on loopback
# ports of its own, all of which end with the script; an XMPP server, a distributor, and a push by curl. Sourced, with
# $demo set to the demonstration's name, as `make` has it, and with the repository as the current folder.

target=$(mkdir -p "${CARGO_TARGET_DIR:-target}" && cd "${CARGO_TARGET_DIR:-target}" && pwd)
runs="$target/${demo:?}"
folder="$runs/$$"
current=

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

# Stops what was left running, and ends the script.
stop_what_was_kept() {
    stopped=0
    for run in "$runs"/*; do
        # A run whose script still works stops by itself.
        if [ -e "$run/kept" ] || { [ -d "$run" ] && [ ! -d "/proc/${run##*/}" ]; }; then
            end "$run"
            rm -rf "$run"
            echo "Stopped what \`make $demo\` ran in $run."
            stopped=1
        fi
    done
    [ $stopped = 1 ] || echo "Nothing of \`make $demo\` was left running."
    exit 0
}

# Builds these packages' binaries and puts them first on the PATH.
build() {
    infra/packages.sh prosody curl gcc libc6-dev
    if ! command -v cargo >/dev/null; then
        echo "upwire: cargo is missing; install Rust as https://rustup.rs says" >&2
        exit 1
    fi
    say "Building upwire (a few minutes the first time)"
    for package in "$@"; do set -- "$@" --package "$package" && shift; done
    cargo build --locked "$@"
    PATH="$target/debug:$PATH"
}

# Makes the run's folder; from here on, whatever ends the script ends all that it started.
open_folder() {
    # What earlier runs left for whoever wanted to read their logs.
    for old in "$runs"/*; do
        [ ! -d "$old" ] || [ -d "/proc/${old##*/}" ] || [ -n "$(processes "$old")" ] || rm -rf "$old"
    done
    mkdir -p "$folder"
    trap finish EXIT
    trap 'exit 129' HUP
    trap 'exit 130' INT
    trap 'exit 143' TERM
}

finish() {
    status=$?
    trap '' HUP INT TERM
    if [ $status -ne 0 ]; then
        # What was started last may not have come as far as its folder or its pid file.
        [ -z "${!:-}" ] || kill "$!" 2>/dev/null || true
        end "$folder"
        say "\`make $demo\` has not come to its end; everything it started is stopped. The ends of the logs:"
        for log in "$folder"/*.log; do
            [ -e "$log" ] && echo "--- $log" && tail -n 12 "$log"
        done
    elif [ ! -e "$folder/kept" ]; then
        end "$folder"
        rm -rf "$folder"
        hint=" \`make $demo KEEP=1\` leaves it running."
        [ -z "${never_kept:-}" ] || hint=
        say "Everything is stopped.$hint"
    fi
    exit $status
}

# start NAME COMMAND…: runs it in the background, in a session of its own: Ctrl-C comes to this script alone.
start() {
    current=$1
    shift
    (cd "$folder" && exec setsid "$@") >"$folder/$current.log" 2>&1 </dev/null &
    echo $! >"$folder/$current.pid"
}

# wait_for WHAT COMMAND…: until the command succeeds, for 60 seconds at most.
wait_for() {
    what=$1
    shift
    tries=600
    until "$@" >/dev/null 2>&1; do
        tries=$((tries - 1))
        if [ $tries -eq 0 ]; then
            echo "upwire: not within 60 seconds: $what" >&2
            exit 1
        elif ! readlink "/proc/$(cat "$folder/$current.pid")/cwd" >/dev/null; then
            echo "upwire: $current has ended while the demonstration waited: $what" >&2
            exit 1
        fi
        sleep 0.1
    done
}

# free_ports COUNT: so many ports of loopback, below the range from which Linux takes those of outgoing connections.
free_ports() {
    python3 -c '
import random, socket, sys
held = []
while len(held) < int(sys.argv[1]):
    s = socket.socket()
    try: s.bind(("127.0.0.1", random.randrange(20000, 32000)))
    except OSError: continue
    held.append(s)
print(*(s.getsockname()[1] for s in held))' "$1"
}

# A Prosody on $c2s and $component, with $component_secret for notify.localhost and an account of $password.
start_prosody() {
    component_secret=$(upwire keygen)
    password=$(upwire keygen)
    say "Starting Prosody, an XMPP server, with the account juliet@localhost (folder: $folder)"
    mkdir -p "$folder/prosody/localhost/accounts"
    echo "return { [\"password\"] = \"$password\" };" >"$folder/prosody/localhost/accounts/juliet.dat"
    start prosody env UPWIRE_PROSODY_DATA="$folder/prosody" UPWIRE_PROSODY_C2S_PORT="${c2s:?}" \
        UPWIRE_PROSODY_COMPONENT_PORT="${component:?}" UPWIRE_COMPONENT_SECRET="$component_secret" \
        prosody --config "$PWD/infra/prosody/prosody.cfg.lua" -F
    wait_for "Prosody listens" grep -q "Activated service 'c2s' on .*:$c2s" "$folder/prosody.log"
}

# Registers as a phone would, and pushes as an application server would. Sets $endpoint.
push_to_a_distributor() {
    say "Logging in as juliet@localhost and registering, as a phone would: upwire distributor"
    start distributor env UPWIRE_PASSWORD="$password" upwire distributor --jid juliet@localhost \
        --server "127.0.0.1:$c2s" --plaintext --push-server notify.localhost
    wait_for "the distributor prints its endpoint" grep -q '^endpoint ' "$folder/distributor.log"
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
}

# Leaves all running, and says what to try; more such lines come from the caller.
leave_running() {
    touch "$folder/kept"
    say "All of it goes on running. What to try next:"
    cat <<NEXT
  another push:             curl --data 'Hello again' $endpoint
  the distributor's output: tail -f $folder/distributor.log
  health and metrics:       curl http://127.0.0.1:${admin:?}/metrics
  stop all:                 make $demo-stop
NEXT
}
