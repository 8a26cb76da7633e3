"""A distributor on slixmpp: a client that none of us wrote.

Logs in without TLS, greets the component, registers, and prints one JSON object a line:
{"event": "endpoint", …}, then {"event": "push", …} for each push, which it answers.
"""

import argparse
import asyncio
import base64
import json
import os

from slixmpp import ClientXMPP
from slixmpp.exceptions import IqError
from slixmpp.xmlstream import ET, ElementBase, register_stanza_plugin
from slixmpp.stanza import Iq
from slixmpp.xmlstream.handler import Callback
from slixmpp.xmlstream.matcher import StanzaPath

UNIFIED_PUSH = "http://gultsch.de/xmpp/drafts/unified-push"


class Register(ElementBase):
    name = plugin_attrib = "register"
    namespace = UNIFIED_PUSH
    interfaces = {"application", "instance"}


class Registered(ElementBase):
    name = plugin_attrib = "registered"
    namespace = UNIFIED_PUSH
    interfaces = {"endpoint", "expiration"}


class Push(ElementBase):
    name = plugin_attrib = "push"
    namespace = UNIFIED_PUSH
    interfaces = {"application", "instance"}


for stanza in (Register, Registered, Push):
    register_stanza_plugin(Iq, stanza)


def tell(event, **fields):
    print(json.dumps({"event": event, **fields}), flush=True)


class Distributor(ClientXMPP):
    def __init__(self, options):
        # Plain text is for loopback: SCRAM without TLS has to be asked for.
        allowed = {"feature_mechanisms": {"unencrypted_scram": True, "unencrypted_plain": True}}
        super().__init__(options.jid, os.environ["PASSWORD"], plugin_config=allowed)
        self.options = options
        self.enable_direct_tls = self.enable_starttls = False
        self.enable_plaintext = True
        for plugin in ("xep_0030", "xep_0198", "xep_0199"):
            self.register_plugin(plugin)
        self.add_event_handler("session_start", self.on_session)
        self.register_handler(Callback("push", StanzaPath("iq@type=set/push"), self.on_push))

    async def on_session(self, _event):
        self.send_presence(pto=self.options.component)
        iq = self.make_iq_set(ito=self.options.component)
        iq["register"]["application"] = self.options.application
        iq["register"]["instance"] = self.options.instance
        try:
            answer = (await iq.send())["registered"]
        except IqError as refused:
            tell("refused", condition=refused.condition, text=refused.text)
            return
        tell("endpoint", endpoint=answer["endpoint"], expiration=answer["expiration"])

    def on_push(self, iq):
        push = iq["push"]
        tell(
            "push",
            id=iq["id"],
            **{"from": str(iq["from"])},
            application=push["application"],
            instance=push["instance"],
            body=push.xml.text or "",
        )
        iq.reply(clear=True).send()


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("jid", "component", "application", "instance"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--port", type=int, required=True)
    options = parser.parse_args()

    async def run():
        distributor = Distributor(options)
        distributor.connect("127.0.0.1", options.port)
        await distributor.disconnected

    asyncio.run(run())


main()
