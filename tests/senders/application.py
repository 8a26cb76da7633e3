"""An application that takes Web Push: the keys of its subscription, and the decryption of what its phone got.

    application.py keys                        prints fresh ones: private, public, auth, in base64url
    application.py decrypt PRIVATE AUTH BODY…  prints the plaintexts of bodies in base64: a list in JSON

A body is `aes128gcm` (RFC 8188), which has all in itself, or `aesgcm` with its two headers in front of it.
"""

import base64
import json
import os
import re
import sys

import http_ece
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

MARK = b"aesgcm\n"


def encode(raw):
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def decode(text):
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def keys():
    private = ec.generate_private_key(ec.SECP256R1())
    public = private.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
    number = private.private_numbers().private_value.to_bytes(32, "big")
    return {"private": encode(number), "public": encode(public), "auth": encode(os.urandom(16))}


def parameter(value, name):
    """Of a header as `dh=…;p256ecdsa=…`: as simple as applications on phones read it."""
    found = [part.strip()[len(name) + 1 :] for part in re.split("[;,]", value) if part.strip().startswith(name + "=")]
    if len(found) != 1:
        sys.exit(f"{len(found)} times {name} in {value!r}")
    return decode(found[0].strip('"'))


def decrypt(body, private, auth):
    if not body.startswith(MARK):
        return http_ece.decrypt(body, private_key=private, auth_secret=auth, version="aes128gcm")
    encryption, crypto_key, ciphertext = body[len(MARK) :].split(b"\n", 2)
    headers = dict(line.decode("ascii").split(": ", 1) for line in (encryption, crypto_key))
    if list(headers) != ["Encryption", "Crypto-Key"]:
        sys.exit(f"not the headers of aesgcm: {list(headers)}")
    return http_ece.decrypt(
        ciphertext,
        salt=parameter(headers["Encryption"], "salt"),
        dh=parameter(headers["Crypto-Key"], "dh"),
        private_key=private,
        auth_secret=auth,
        version="aesgcm",
    )


match sys.argv[1:]:
    case ["keys"]:
        print(json.dumps(keys()))
    case ["decrypt", private, auth, *bodies]:
        private = ec.derive_private_key(int.from_bytes(decode(private), "big"), ec.SECP256R1())
        plaintexts = [decrypt(base64.b64decode(body), private, decode(auth)) for body in bodies]
        print(json.dumps([plaintext.decode() for plaintext in plaintexts]))
