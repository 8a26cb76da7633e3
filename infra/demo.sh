#!/bin/sh
# The whole path on this machine: a Prosody, `upwire serve`, a distributor, and a push by curl.
#
#     infra/demo.sh         starts all, pushes once, stops all
#     KEEP=1 infra/demo.sh  leaves all running
#     infra/demo.sh stop    stops all that was left running
set -eu
cd "$(dirname "$0")/.."
demo=demo
. infra/demo-parts.sh

[ "${1:-}" != stop ] || stop_what_was_kept
build upwire
open_folder
ports=$(free_ports 4)
read -r c2s component http admin <<PORTS
$ports
PORTS
start_prosody

say "Starting the push server: upwire serve, at http://127.0.0.1:$http, as the component notify.localhost"
start serve env UPWIRE_PUBLIC_URL="http://127.0.0.1:$http" UPWIRE_LISTEN="127.0.0.1:$http" \
    UPWIRE_ADMIN_LISTEN="127.0.0.1:$admin" UPWIRE_DATABASE="$folder/upwire.db" \
    UPWIRE_COMPONENT=notify.localhost UPWIRE_COMPONENT_SECRET="$component_secret" \
    UPWIRE_XMPP_SERVER="127.0.0.1:$component" upwire serve
wait_for "upwire serve is ready" curl --fail --silent "http://127.0.0.1:$admin/readyz"

push_to_a_distributor
if [ "${KEEP:-}" = 1 ]; then
    leave_running
    echo "  the server's log:         tail -f $folder/serve.log"
fi
