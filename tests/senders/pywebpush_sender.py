"""An application server on pywebpush: sends one push, as its one argument says, and prints what was answered.

The argument and the answer are JSON; tests/src/web_push.rs has their fields.
"""

import json
import sys

from pywebpush import WebPushException, webpush

request = json.loads(sys.argv[1])
vapid = request.get("vapid")
headers = {"Urgency": request["urgency"]}
if request.get("topic"):
    headers["Topic"] = request["topic"]
try:
    response = webpush(
        {
            "endpoint": request["endpoint"],
            "keys": {"p256dh": request["p256dh"], "auth": request["auth"]},
        },
        data=request["payload"],
        vapid_private_key=vapid and vapid["private"],
        vapid_claims=vapid and {"sub": "mailto:sender@example.com"},
        content_encoding=request["encoding"],
        ttl=request["ttl"],
        headers=headers,
        timeout=30,
    )
except WebPushException as error:
    if error.response is None:
        raise
    response = error.response
print(json.dumps({"status": response.status_code, "headers": dict(response.headers), "body": response.text}))
