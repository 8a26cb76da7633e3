"""Prints an endpoint's token as the push server *up* makes it: PASETO v2.local, its claims in JSON on stdin."""

import base64
import sys

import pyseto

key = pyseto.Key.new(version=2, purpose="local", key=base64.b64decode(sys.argv[1]))
print(pyseto.encode(key, sys.stdin.buffer.read()).decode())
