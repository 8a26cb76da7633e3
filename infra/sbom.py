#!/usr/bin/env python3
"""Writes the software bill of materials of the released binary: CycloneDX 1.5, in JSON.

    infra/sbom.py FOLDER    as FOLDER/upwire.cdx.json; cargo-cyclonedx is on the PATH
"""

import json
import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).parent.parent
# It writes a file beside the Cargo.toml of each crate of the workspace, of which one is of the binary's.
NAME = "upwire-sbom"


def out(*command: str) -> str:
    return subprocess.run(command, cwd=ROOT, check=True, text=True, stdout=subprocess.PIPE).stdout


def is_in(component: dict, crates: set[tuple[str, str]]) -> bool:
    return (component["name"], component["version"]) in crates


def main() -> None:
    folder = pathlib.Path(sys.argv[1])
    host = re.search(r"^host: (.+)$", out("rustc", "--version", "--verbose"), re.MULTILINE)[1]
    version = ["--format", "json", "--spec-version", "1.5", "--override-filename", NAME]
    try:
        out("cargo", "cyclonedx", "--quiet", "--target", host, *version)
        text = (ROOT / "cli" / f"{NAME}.json").read_text()
    finally:
        for file in ROOT.rglob(f"*/{NAME}.json"):
            file.unlink()
    # Nobody else has this checkout's path.
    bill = json.loads(text.replace(f"file://{ROOT.resolve()}", "file:///upwire"))

    # It knows the features of the whole workspace; the binary has fewer crates.
    tree = out("cargo", "tree", "--locked", "--package", "upwire", "--edges", "no-dev", "--target", host,
               "--prefix", "none", "--format", "{p}")  # fmt: skip
    crates = {(line.split()[0], line.split()[1].removeprefix("v")) for line in tree.splitlines()}
    bill["components"] = [component for component in bill["components"] if is_in(component, crates)]
    missing = crates - {(component["name"], component["version"]) for component in bill["components"]}
    own = bill["metadata"]["component"]
    if missing != {(own["name"], own["version"])}:
        sys.exit(f"sbom: these are in the binary, and not in the bill: {sorted(missing)}")
    left = {component["bom-ref"] for component in [own, *bill["components"]]}
    bill["dependencies"] = [
        {**entry, "dependsOn": [name for name in entry.get("dependsOn", []) if name in left]}
        for entry in bill["dependencies"]
        if entry["ref"] in left
    ]
    (folder / "upwire.cdx.json").write_text(json.dumps(bill, indent=2) + "\n")


if __name__ == "__main__":
    main()
