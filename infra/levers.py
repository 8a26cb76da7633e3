#!/usr/bin/env python3
"""Moves a stack of template.yaml that runs, in seconds or as fast as CloudFormation does it.

    infra/levers.py close                          the function takes no push: senders keep theirs, and try again
    infra/levers.py open                           it does again
    infra/levers.py parameters MaxTtl=3600 …       gives parameters other values
    infra/levers.py rollback [VERSION]             gives senders the version of the function before, or that one

None of it builds anything or reads the checkout's template: what changes is what is named, in the template that is
deployed. The environment says to which account and region it goes, as everywhere.
"""

import argparse
import secrets
import sys

import boto3
from botocore.exceptions import BotoCoreError, ClientError, WaiterError

# template.yaml's names.
ALIAS, RELEASE, RESERVATION = "live", "Release", "ReservedConcurrency"
NO_RESERVATION = -1
CAPABILITIES = ["CAPABILITY_IAM", "CAPABILITY_AUTO_EXPAND"]
SECONDS_BETWEEN_LOOKS, LOOKS_MAX = 2, 1800


class Stack:
    def __init__(self, session, name):
        self.name = name
        self.cloudformation, self.functions = session.client("cloudformation"), session.client("lambda")
        found = self.cloudformation.describe_stacks(StackName=name)["Stacks"][0]
        self.parameters = {one["ParameterKey"]: one["ParameterValue"] for one in found.get("Parameters", [])}
        outputs = {one["OutputKey"]: one["OutputValue"] for one in found.get("Outputs", [])}
        self.function = outputs["Function"]

    def close(self):
        self.functions.put_function_concurrency(FunctionName=self.function, ReservedConcurrentExecutions=0)
        print(f"closed: senders to {self.name} are told to try again later; make open opens it")

    def open(self):
        reservation = int(self.parameters[RESERVATION])
        if reservation == 0:
            sys.exit(f"upwire: {self.name} has {RESERVATION}=0; make parameters PARAMETERS='{RESERVATION}=-1' opens it")
        if reservation == NO_RESERVATION:
            self.functions.delete_function_concurrency(FunctionName=self.function)
        else:
            self.functions.put_function_concurrency(
                FunctionName=self.function, ReservedConcurrentExecutions=reservation
            )
        print(f"open: {self.name} takes pushes")

    def rollback(self, version):
        alias = self.functions.get_alias(FunctionName=self.function, Name=ALIAS)
        now = alias["FunctionVersion"]
        version = version or self.version_before(int(now))
        # Without weights: a canary that runs ends as well.
        self.functions.update_alias(
            FunctionName=self.function,
            Name=ALIAS,
            FunctionVersion=version,
            RoutingConfig={"AdditionalVersionWeights": {}},
        )
        print(f"senders to {self.name} have version {version} of the function instead of {now}")

    def version_before(self, now):
        pages = self.functions.get_paginator("list_versions_by_function").paginate(FunctionName=self.function)
        numbers = [one["Version"] for page in pages for one in page["Versions"] if one["Version"].isdigit()]
        before = [int(number) for number in numbers if int(number) < now]
        if not before:
            sys.exit(f"upwire: version {now} is the first of {self.function}")
        return str(max(before))

    def change(self, values):
        """Other values for parameters; each else keeps its own, and the template is the one that is deployed."""
        if unknown := values.keys() - self.parameters.keys():
            known = ", ".join(sorted(self.parameters))
            sys.exit(f"upwire: {self.name} has no parameter {', '.join(sorted(unknown))}; it has {known}")
        # For another one, a version of the function is published, and senders get it.
        values = {RELEASE: secrets.token_hex(8)} | values if RELEASE in self.parameters else values
        parameters = [
            {"ParameterKey": name, "ParameterValue": values[name]}
            if name in values
            else {"ParameterKey": name, "UsePreviousValue": True}
            for name in self.parameters
        ]
        self.cloudformation.update_stack(
            StackName=self.name, UsePreviousTemplate=True, Parameters=parameters, Capabilities=CAPABILITIES
        )
        waiter = self.cloudformation.get_waiter("stack_update_complete")
        waiter.wait(
            StackName=self.name, WaiterConfig={"Delay": SECONDS_BETWEEN_LOOKS, "MaxAttempts": LOOKS_MAX}
        )
        print(f"{self.name} has another {', '.join(sorted(values.keys() - {RELEASE}))}")


def assignment(text):
    name, equals, value = text.partition("=")
    if not (name and equals):
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=VALUE")
    return name, value


def main():
    parser = argparse.ArgumentParser(description="Moves a stack that runs.")
    parser.add_argument("--stack", default="upwire", help="the stack's name")
    levers = parser.add_subparsers(dest="lever", required=True)
    levers.add_parser("close", help="the function takes no push")
    levers.add_parser("open", help="it does again")
    rollback = levers.add_parser("rollback", help="senders get an earlier version of the function")
    rollback.add_argument("version", nargs="?", help="its number; without it, the one before")
    change = levers.add_parser("parameters", help="other values for parameters")
    change.add_argument("values", nargs="+", type=assignment, metavar="NAME=VALUE")
    options = parser.parse_args()
    try:
        stack = Stack(boto3.Session(), options.stack)
        match options.lever:
            case "close":
                stack.close()
            case "open":
                stack.open()
            case "rollback":
                stack.rollback(options.version)
            case "parameters":
                stack.change(dict(options.values))
    except WaiterError as error:
        sys.exit(f"upwire: {options.stack} was not changed: {error}; its events in CloudFormation say why")
    except (BotoCoreError, ClientError, KeyError) as error:
        sys.exit(f"upwire: {options.stack}: {error}")


if __name__ == "__main__":
    main()
