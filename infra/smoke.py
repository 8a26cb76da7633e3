"""What only AWS itself can answer of a stack that runs: asks it, and prints a table of verdicts.

    infra/smoke.sh STACK                      what needs no phone, and changes nothing
    infra/smoke.sh STACK --endpoint URL       pushes to a phone of yours as well: compare what it shows
                                              (the status shows that no body became longer, not that each arrives as it was)
    infra/smoke.sh STACK --idle 600           one more push, after so many seconds without any
    infra/smoke.sh STACK --close --alarms     closes the ingress and opens it again; raises each alarm once: you get mail

Exit code 1: a verdict is a failure. What was not asked for, and what an emulator cannot play, is "left out".
"""

import argparse
import http.client
import subprocess
import sys
import time
from pathlib import Path
from urllib.parse import urlsplit

import boto3
from botocore.exceptions import BotoCoreError, ClientError

BODY_BYTES_MAX = 4096
# A body that is no UTF-8 must not become longer on its way.
BINARY = b"\xff" * BODY_BYTES_MAX
PATIENCE_SECONDS = 60
# Senders' gateways give up after two seconds.
ANSWER_SECONDS_MAX = 2
LEVERS = Path(__file__).parent / "levers.py"


class Verdicts:
    def __init__(self):
        self.failed = False

    def say(self, case, good, seen):
        self.failed |= not good
        print(f"{'ok' if good else 'FAILED':9} {case:52} {seen}")

    def leave_out(self, case, why):
        print(f"{'left out':9} {case:52} {why}")


def ask(url, method="POST", headers=(), body=b""):
    """The status, the headers and the body of an answer. No header is sent but those given: none says what the body is."""
    parts = urlsplit(url)
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    connection = kind(parts.netloc, timeout=30)
    connection.putrequest(method, parts.path or "/")
    for name, value in (*headers, ("content-length", str(len(body)))):
        connection.putheader(name, value)
    connection.endheaders(body)
    answer = connection.getresponse()
    return answer.status, answer.headers, answer.read()


def fronts(outputs, functions, options):
    """Where senders may come from: what the output says, and the Function URL, if there is one beside it."""
    found = {options.url or outputs["PublicUrl"].rstrip("/")}
    if not options.url:
        pages = functions.get_paginator("list_function_url_configs").paginate(FunctionName=outputs["Function"])
        found |= {one["FunctionUrl"].rstrip("/") for page in pages for one in page["FunctionUrlConfigs"]}
    return sorted(found)


def without_a_phone(verdicts, front):
    status, _, body = ask(front + "/", "GET")
    verdicts.say("the page", status == 200 and body, status)
    status, _, body = ask(front + "/", "HEAD")
    verdicts.say("HEAD has no body", status == 200 and not body, status)
    status, _, _ = ask(front + "/push/forged")
    verdicts.say("a forged endpoint is 404", status == 404, status)


def with_a_phone(verdicts, endpoint, emulated):
    for case, headers in [
        ("4096 bytes, no type", []),
        ("4096 bytes, text/plain", [("content-type", "text/plain")]),
        ("4096 bytes, a form", [("content-type", "application/x-www-form-urlencoded")]),
        ("4096 bytes, aes128gcm", [("content-encoding", "aes128gcm"), ("content-type", "application/octet-stream")]),
        ("a key of a sender that none asked for", [("authorization", "vapid t=a.b.c, k=BA")]),
    ]:
        if emulated and ("content-type", "text/plain") in headers:
            verdicts.leave_out(case, "an emulator makes UTF-8 of it, by which it is longer")
            continue
        status, _, _ = ask(endpoint, headers=headers, body=BINARY)
        verdicts.say(case, status == 201, status)
    status, _, _ = ask(endpoint, body=BINARY + b"\xff")
    verdicts.say("4097 bytes are 413", status == 413, status)
    status, headers, _ = ask(endpoint, headers=[("ttl", "60"), ("ttl", "86400")], body=b"joined")
    verdicts.say("of a header that comes twice, the first counts", (status, headers["ttl"]) == (201, "60"), status)


def after_idle(verdicts, endpoint, seconds):
    time.sleep(seconds)
    start = time.monotonic()
    status, _, _ = ask(endpoint, body=b"after a while")
    took = time.monotonic() - start
    verdicts.say(f"a push after {seconds} idle seconds", status == 201 and took < ANSWER_SECONDS_MAX, f"{took:.2f} s")


def settings(verdicts, functions, outputs):
    live = functions.get_alias(FunctionName=outputs["Function"], Name="live")
    expected = outputs["FunctionVersion"]
    verdicts.say("senders get the version that was deployed", live["FunctionVersion"] == expected, expected)
    function = functions.get_function_configuration(FunctionName=outputs["Function"], Qualifier="live")
    verdicts.say("the function is active", function["State"] == "Active", function["State"])
    return function["Architectures"]


def arm64(verdicts, architectures, front):
    case = "arm64 runs the function"
    if architectures == ["arm64"]:
        status, _, _ = ask(front + "/", "GET")
        verdicts.say(case, status == 200, status)
    else:
        verdicts.leave_out(case, f"this stack has {' '.join(architectures)}; make deploy ARCHITECTURE=arm64")


def closing(verdicts, fronts, stack):
    def becomes(case, wanted):
        for front in fronts:
            deadline = time.monotonic() + PATIENCE_SECONDS
            while (status := ask(front + "/push/forged")[0]) not in wanted and time.monotonic() < deadline:
                time.sleep(1)
            print(front)
            verdicts.say(case, status in wanted, status)

    lever = [sys.executable, LEVERS, "--stack", stack]
    subprocess.run([*lever, "close"], check=True, stdout=subprocess.DEVNULL)
    try:
        # Nothing by which a sender would drop its subscription.
        becomes("a closed ingress is 429 or 503", (429, 503))
    finally:
        subprocess.run([*lever, "open"], check=True, stdout=subprocess.DEVNULL)
    becomes("an open one answers again", (404,))


def raise_alarms(verdicts, cloudwatch, stack):
    alarms = cloudwatch.describe_alarms(AlarmNamePrefix=f"{stack} ")["MetricAlarms"]
    names = [alarm["AlarmName"] for alarm in alarms if alarm["AlarmActions"]]
    for name in names:
        cloudwatch.set_alarm_state(AlarmName=name, StateValue="ALARM", StateReason="infra/smoke.sh raises each once")
    verdicts.say("alarms are raised: as many mails have to come", names, len(names))


def main():
    parser = argparse.ArgumentParser(description="Asks a stack that runs what only AWS can answer.")
    parser.add_argument("stack", help="its name")
    parser.add_argument("--endpoint", help="of a phone of yours, for pushes that arrive")
    parser.add_argument("--idle", type=int, metavar="SECONDS", help="push once more after so long; needs --endpoint")
    parser.add_argument("--close", action="store_true", help="close the ingress, and open it again")
    parser.add_argument("--alarms", action="store_true", help="raise each alarm once")
    parser.add_argument("--url", help="where the front is, instead of where the stack says: for emulators")
    options = parser.parse_args()
    session = boto3.Session()
    found = session.client("cloudformation").describe_stacks(StackName=options.stack)["Stacks"][0]
    outputs = {one["OutputKey"]: one["OutputValue"] for one in found["Outputs"]}
    functions, verdicts = session.client("lambda"), Verdicts()

    architectures = settings(verdicts, functions, outputs)
    urls = fronts(outputs, functions, options)
    arm64(verdicts, architectures, urls[0])
    for front in urls:
        print(front)
        without_a_phone(verdicts, front)
    if options.endpoint:
        token = options.endpoint.rsplit("/push/", 1)[-1]
        for front in urls:
            print(front)
            with_a_phone(verdicts, f"{front}/push/{token}", emulated=bool(options.url))
    else:
        verdicts.leave_out("bodies, headers, sizes", "--endpoint")
    if options.endpoint and options.idle:
        after_idle(verdicts, options.endpoint, options.idle)
    else:
        verdicts.leave_out("a push after idle minutes", "--endpoint and --idle 600")
    if options.close and options.url:
        verdicts.leave_out("a closed ingress", "an emulator goes on calling the function")
    elif options.close:
        closing(verdicts, urls, options.stack)
    else:
        verdicts.leave_out("a closed ingress", "--close")
    if options.alarms:
        raise_alarms(verdicts, session.client("cloudwatch"), options.stack)
    else:
        verdicts.leave_out("alarms", "--alarms")
    sys.exit(verdicts.failed)


if __name__ == "__main__":
    try:
        main()
    except (BotoCoreError, ClientError, OSError) as error:
        sys.exit(f"upwire: {error}")
