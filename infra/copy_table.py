#!/usr/bin/env python3
"""Copies the items of a DynamoDB table into another one, of another region perhaps: what a move to another region needs.

    infra/copy_table.py --from eu-central-1 upwire-Registrations-AAAA --to eu-west-1 upwire-Registrations-BBBB

Nothing may write to the first one meanwhile: drain the stack. An item of the second that has the same key is replaced, so
that a copy which was interrupted is made again from the beginning. Both tables have to have the same keys.
"""

import argparse
import sys

import boto3
from botocore.exceptions import BotoCoreError, ClientError

SAY_EACH = 10_000


def table(where):
    region, name = where
    return boto3.resource("dynamodb", region_name=region).Table(name)


def copy(source, target):
    """The number of items. A page is in memory at a time; the writer repeats what DynamoDB did not take."""
    if source.key_schema != target.key_schema:
        sys.exit(f"upwire: {source.name} and {target.name} have different keys: they are not of the same kind")
    copied, pages = 0, source.meta.client.get_paginator("scan").paginate(TableName=source.name, ConsistentRead=True)
    with target.batch_writer() as writer:
        for page in pages:
            for item in page["Items"]:
                writer.put_item(Item=item)
                copied += 1
                if copied % SAY_EACH == 0:
                    print(f"{copied} items", flush=True)
    return copied


def main():
    parser = argparse.ArgumentParser(description="Copies the items of a table into another one.")
    for option, what in [("--from", "the table that is read"), ("--to", "the table that is written")]:
        parser.add_argument(option, nargs=2, required=True, metavar=("REGION", "NAME"), dest=option[2:] + "_", help=what)
    options = parser.parse_args()
    if options.from_ == options.to_:
        parser.error("both are the same table")
    try:
        print(f"{copy(table(options.from_), table(options.to_))} items were copied")
    except (BotoCoreError, ClientError) as error:
        sys.exit(f"upwire: {error}; run it again when that is mended")


if __name__ == "__main__":
    main()
