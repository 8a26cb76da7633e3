#!/bin/sh
# AWS on this machine, without containers: LocalStack with the tables and queues of template.yaml, the function's
# binary behind a Function URL, `upwire relay`, a Prosody, a distributor, and a push by curl.
#
#     infra/local/local.sh         starts all, pushes once, stays until Enter or Ctrl-C; without a terminal, ends
#     KEEP=1 infra/local/local.sh  leaves all running
#     infra/local/local.sh stop    stops all that was left running
set -eu
cd "$(dirname "$0")/../.."
demo=local
. infra/demo-parts.sh

[ "${1:-}" != stop ] || stop_what_was_kept
build upwire functions
emulator=localstack
infra/local/emulator.sh install localstack || {
    # There is no Python 3.13.
    [ $? = 69 ] || exit 1
    say "Without LocalStack: ministack stands in for it"
    emulator=ministack
    infra/local/emulator.sh install ministack
}
open_folder
ports=$(free_ports 5)
read -r c2s component http admin aws <<PORTS
$ports
PORTS

# Nothing of this may lead to a real account.
unset AWS_PROFILE AWS_SESSION_TOKEN AWS_ENDPOINT_URL_SQS AWS_ENDPOINT_URL_DYNAMODB
export AWS_ENDPOINT_URL="http://127.0.0.1:$aws" AWS_REGION=us-east-1 AWS_ACCESS_KEY_ID=test AWS_SECRET_ACCESS_KEY=test

say "Starting $emulator at $AWS_ENDPOINT_URL (folder: $folder)"
start "$emulator" "$PWD/infra/local/emulator.sh" start "$emulator" "$aws" "$folder/$emulator"
wait_for "$emulator is ready" curl --fail --silent "$AWS_ENDPOINT_URL/_$emulator/health"

say "Making the tables and queues of template.yaml"
"$target/$emulator/venv/bin/python" infra/local/stack.py --endpoint "$AWS_ENDPOINT_URL" >"$folder/outputs.json"
output() { python3 -c 'import json, sys; print(json.load(open(sys.argv[1]))[sys.argv[2]])' "$folder/outputs.json" "$1"; }
UPWIRE_QUEUE_URL=$(output QueueUrl)
UPWIRE_REGISTRATIONS_TABLE=$(output RegistrationsTable)
UPWIRE_MAILBOX_TABLE=$(output MailboxTable)
UPWIRE_TABLE_ID=$(output TableId)
UPWIRE_SECRET=$(upwire keygen)
UPWIRE_PUBLIC_URL="http://127.0.0.1:$http"
export UPWIRE_QUEUE_URL UPWIRE_REGISTRATIONS_TABLE UPWIRE_MAILBOX_TABLE UPWIRE_TABLE_ID UPWIRE_SECRET UPWIRE_PUBLIC_URL
echo "  $UPWIRE_QUEUE_URL"
echo "  $UPWIRE_REGISTRATIONS_TABLE"
echo "  $UPWIRE_MAILBOX_TABLE"

say "Starting the function behind a Runtime API, at $UPWIRE_PUBLIC_URL"
start function python3 "$PWD/infra/local/function-url.py" --binary "$target/debug/upwire-ingress" --port "$http"
wait_for "the function answers" curl --silent "$UPWIRE_PUBLIC_URL"

start_prosody
say "Starting the always-on half: upwire relay, as the component notify.localhost"
start relay env UPWIRE_ADMIN_LISTEN="127.0.0.1:$admin" UPWIRE_COMPONENT=notify.localhost \
    UPWIRE_COMPONENT_SECRET="$component_secret" UPWIRE_XMPP_SERVER="127.0.0.1:$component" upwire relay
wait_for "upwire relay is ready" curl --fail --silent "http://127.0.0.1:$admin/readyz"

push_to_a_distributor
if [ "${KEEP:-}" = 1 ]; then
    leave_running
    echo "  the logs of both halves:  tail -f $folder/function.log $folder/relay.log"
elif [ -t 0 ]; then
    trap 'exit 0' HUP INT TERM
    say "All of it runs until Enter or Ctrl-C. Meanwhile:"
    echo "  another push:             curl --data 'Hello again' $endpoint"
    echo "  the distributor's output: tail -f $folder/distributor.log"
    read -r _ || true
fi
