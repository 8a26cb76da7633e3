#!/usr/bin/env python3
"""Whether the alerts fire when they should, and every metric of alerts and dashboard is one that Upwire has."""

import json
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

HERE = pathlib.Path(__file__).parent
ROOT = HERE.parent.parent
METRIC = re.compile(r"\bupwire_[a-z_]+")


def main() -> int:
    sources = [path for crate in ("relay", "functions", "cli") for path in (ROOT / crate / "src").rglob("*.rs")]
    known = set().union(*(re.findall(r'"(upwire_[a-z_]+)"', path.read_text()) for path in sources))
    # Prometheus makes these of a histogram.
    known |= {metric + ending for metric in known if metric.endswith("_seconds") for ending in ("_bucket", "_count", "_sum")}
    dashboard = json.loads((HERE / "dashboard.json").read_text())
    used = set(METRIC.findall((HERE / "alerts.yml").read_text()))
    for panel in dashboard["panels"]:
        for target in panel["targets"]:
            used |= set(METRIC.findall(target["expr"]))
    for metric in sorted(used - known):
        print(f"monitoring: Upwire has no metric {metric}", file=sys.stderr)
    failed = bool(used - known)

    tool = shutil.which("promtool")
    if tool is None:
        print("==> LEFT OUT: promtool is not here (Debian's package prometheus); the alerts are not tried")
        return int(failed)
    # The expressions of the dashboard, as rules: promtool has no other way to read them.
    expressions = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    rules = [
        {"record": f"dashboard:{place}", "expr": text.replace("$__rate_interval", "5m")}
        for place, text in enumerate(expressions)
    ]
    groups = json.dumps({"groups": [{"name": "dashboard", "rules": rules}]})
    with tempfile.NamedTemporaryFile("w", suffix=".yml") as rules_of_dashboard:
        rules_of_dashboard.write(groups)
        rules_of_dashboard.flush()
        for command in (
            ["check", "rules", "--lint-fatal", "alerts.yml"],
            ["check", "rules", "--lint=none", rules_of_dashboard.name],
            ["test", "rules", "alerts.test.yml"],
        ):
            done = subprocess.run([tool, *command], cwd=HERE, text=True, capture_output=True)
            if done.returncode:
                print(done.stdout + done.stderr, file=sys.stderr)
                failed = True
    if not failed:
        print(f"monitoring: {len(used)} metrics are Upwire's, and the alerts fire when they should")
    return int(failed)


sys.exit(main())
