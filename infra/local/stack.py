"""Deploys template.yaml to an emulator by CloudFormation, and prints the stack's outputs as one JSON object.

    target/localstack/venv/bin/python infra/local/stack.py --endpoint http://127.0.0.1:4566
    target/ministack/venv/bin/python infra/local/stack.py --translate --parameter Front=Both
    target/ministack/venv/bin/python infra/local/stack.py --endpoint http://127.0.0.1:4566 \
        --function target/lambda/upwire-ingress/bootstrap --parameter Front=HttpApi

With --function, all of it, for ministack; PublicUrl is then where the emulator serves the function, in plain HTTP.
A second time, it updates the stack; give the same parameters, and another Release where one has changed.
With --template FILE, it deploys that one: the template of an earlier commit, to upgrade from or to go back to.
Give it --parameter EndpointSecret=…: of the secrets that ministack makes, some have a comma and are not one secret.
Without, the tables, the queues and who may use them: what LocalStack has, and what refers to nothing else.

A queue or table is called STACK-RESOURCE, such as upwire-Queue, so that its name is known beforehand.
"""

import argparse
import io
import json
import re
import sys
import zipfile
from pathlib import Path
from urllib.parse import urlsplit

import boto3
from botocore.exceptions import ClientError, WaiterError
from samtranslator.parser.parser import Parser
from samtranslator.translator.translator import Translator
from samtranslator.yaml_helper import yaml_parse

TEMPLATE = Path(__file__).parent.parent.parent / "template.yaml"
REGION = "us-east-1"
NAMES = {"AWS::SQS::Queue": "QueueName", "AWS::DynamoDB::Table": "TableName"}
WITHOUT_FUNCTION = ("AWS::DynamoDB::", "AWS::SQS::", "AWS::IAM::")


def main():
    parser = argparse.ArgumentParser(description="Deploys template.yaml to an emulator.")
    parser.add_argument("--endpoint", help="the emulator's URL")
    parser.add_argument("--template", type=Path, default=TEMPLATE, help="another template than this checkout's")
    parser.add_argument("--translate", action="store_true", help="print what SAM makes of the template, and deploy nothing")
    parser.add_argument("--stack", default="upwire", help="the stack's name")
    parser.add_argument("--function", type=Path, help="the ingress' binary; without it, no function is deployed")
    parser.add_argument("--parameter", action="append", default=[], metavar="NAME=VALUE", help="of the template")
    options = parser.parse_args()
    if not (options.endpoint or options.translate):
        parser.error("where to? --endpoint")
    session = boto3.Session("test", "test", region_name=REGION)
    parameters = dict(parameter.split("=", 1) for parameter in options.parameter)

    def client(service):
        return session.client(service, endpoint_url=options.endpoint)

    template = yaml_parse(options.template.read_text())
    code = upload(client("s3"), options.stack, options.function) if options.function else {"Bucket": "-", "Key": "-"}
    template["Resources"]["Ingress"]["Properties"]["CodeUri"] = code
    defaults = {name: known["Default"] for name, known in template["Parameters"].items() if "Default" in known}
    # SAM's own transformation: ministack's does not see the parameters' values.
    template = Translator({}, Parser(), boto_session=session).translate(template, defaults | parameters)
    if options.translate:
        return print(json.dumps(template))
    if not options.function:
        keep(template, WITHOUT_FUNCTION)
    for resource in template["Resources"].values():
        if resource["Type"] == "AWS::CloudWatch::Alarm":
            watch_one_metric(resource["Properties"])

    for name, resource in template["Resources"].items():
        if property := NAMES.get(resource["Type"]):
            resource["Properties"][property] = f"{options.stack}-{name}"

    cloudformation = client("cloudformation")
    deploy(cloudformation, options.stack, template, parameters)
    enable_ttl(cloudformation, client("dynamodb"), options.stack, template)
    outputs = cloudformation.describe_stacks(StackName=options.stack)["Stacks"][0]["Outputs"]
    outputs = {output["OutputKey"]: output["OutputValue"] for output in outputs}
    # The emulators name themselves localhost.
    for name in "QueueUrl", "DeadLetterQueueUrl":
        outputs[name] = options.endpoint + urlsplit(outputs[name]).path
    if "PublicUrl" in outputs:
        outputs["PublicUrl"] = served_at(options.endpoint, outputs["PublicUrl"])
    print(json.dumps(outputs))


def upload(s3, bucket, binary):
    """The binary as the zip file that Lambda wants; where it is then."""
    bootstrap = zipfile.ZipInfo("bootstrap")
    bootstrap.external_attr = 0o755 << 16
    code = io.BytesIO()
    with zipfile.ZipFile(code, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(bootstrap, binary.read_bytes())
    s3.create_bucket(Bucket=bucket)  # Once more, it is no error.
    s3.put_object(Bucket=bucket, Key="ingress.zip", Body=code.getvalue())
    return {"Bucket": bucket, "Key": "ingress.zip"}


def keep(template, types):
    """Leaves only resources of these types, and neither resources nor outputs that refer to what is gone."""
    resources, outputs = template["Resources"], template["Outputs"]
    gone = {name for name, resource in resources.items() if not resource["Type"].startswith(types)}
    while gone:
        for section in resources, outputs:
            for name in gone & section.keys():
                del section[name]
        left = [(name, part) for section in (resources, outputs) for name, part in section.items()]
        gone = {name for name, part in left if gone & references(part)}


def watch_one_metric(alarm):
    """ministack's alarms do not compute: this one watches the first of its metrics there, and is of no use but to be there."""
    for metric in alarm.pop("Metrics", []):
        if stat := metric.get("MetricStat"):
            return alarm.update(stat["Metric"], Period=stat["Period"], Statistic=stat["Stat"])


def references(part):
    """The names that a part of a template refers to."""
    if isinstance(part, list):
        return set().union(*map(references, part))
    if not isinstance(part, dict):
        return set()
    names = set().union(*map(references, part.values()))
    names |= {part[key] for key in ("Ref", "DependsOn") if isinstance(part.get(key), str)}
    if attribute := part.get("Fn::GetAtt"):
        names.add(attribute[0] if isinstance(attribute, list) else attribute.split(".")[0])
    if text := part.get("Fn::Sub"):
        names |= set(re.findall(r"\$\{(\w+)", text[0] if isinstance(text, list) else text))
    return names


def deploy(cloudformation, stack, template, parameters):
    """Makes the stack, or updates the one that is there."""
    try:
        cloudformation.describe_stacks(StackName=stack)
        call, done = cloudformation.update_stack, "stack_update_complete"
    except ClientError:
        call, done = cloudformation.create_stack, "stack_create_complete"
    # CloudFormation takes 51,200 bytes in a call: what is only for those who read and write the template stays out.
    template = {key: part for key, part in template.items() if key != "Metadata"}
    for parameter in template.get("Parameters", {}).values():
        parameter.pop("Description", None)
    call(
        StackName=stack,
        TemplateBody=json.dumps(template, separators=(",", ":")),
        Parameters=[{"ParameterKey": name, "ParameterValue": value} for name, value in parameters.items()],
        Capabilities=["CAPABILITY_IAM"],
    )
    try:
        cloudformation.get_waiter(done).wait(StackName=stack, WaiterConfig={"Delay": 1, "MaxAttempts": 60})
    except WaiterError as error:
        for event in cloudformation.describe_stack_events(StackName=stack)["StackEvents"]:
            if "FAILED" in event["ResourceStatus"]:
                print(event["LogicalResourceId"], event.get("ResourceStatusReason"), file=sys.stderr)
        sys.exit(f"upwire: the stack {stack} was not deployed: {error}")


def enable_ttl(cloudformation, dynamodb, stack, template):
    """ministack drops a table's TimeToLiveSpecification."""
    for name, resource in template["Resources"].items():
        if wanted := resource.get("Properties", {}).get("TimeToLiveSpecification"):
            found = cloudformation.describe_stack_resource(StackName=stack, LogicalResourceId=name)
            table = found["StackResourceDetail"]["PhysicalResourceId"]
            state = dynamodb.describe_time_to_live(TableName=table)["TimeToLiveDescription"]
            if state["TimeToLiveStatus"] == "DISABLED":
                dynamodb.update_time_to_live(TableName=table, TimeToLiveSpecification=wanted)


def served_at(endpoint, url):
    """Where ministack serves what AWS would at this URL of a Function URL or an HTTP API."""
    front, service = re.match(r"https?://([^.]+)\.(lambda-url|execute-api)\.", url).groups()
    return f"{endpoint}/_aws/{service}/{front}" + ("/$default" if service == "execute-api" else "")


if __name__ == "__main__":
    main()
