#!/usr/bin/env python3
"""Gates what a text names: links and anchors of the docs, citations in code, metrics, bounds, the README's length.

A link in Markdown leads to a file of the repository, and its anchor to a heading there. A comment cites a page by its path
(docs/protocol.md), perhaps with a heading in double quotes after it; both exist. In the table "Where to look" of
CONTRIBUTING.md, each name of code that stands beside a file (`name` in `file.rs`) is in that file. Each constant whose
name ends in _MAX is in docs/bounds.md, or is of a kind that the page leaves out.
"""

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
README_LINES_MAX = 150
ARCHITECTURE_LINES_MAX = 150
CRATES = ["push", "embedded", "aws", "functions", "relay", "cli"]
CODE = {".rs", ".py", ".sh", ".toml", ".yaml", ".yml", ".service", ".timer", ".html", ".lua"}

FENCE = re.compile(r"^(```|~~~).*?^\1[^\n]*$", re.MULTILINE | re.DOTALL)
HEADING = re.compile(r"^#{1,6} +(.+?) *#*$", re.MULTILINE)
LINK = re.compile(r"\[[^\]]*\]\(([^()\s]+)\)")
# A path that a scheme or a host precedes is no file of ours.
CITATION = re.compile(r'(?<![\w/."-])((?:docs/(?:[\w-]+/)?)?[\w-]+\.md)(?:, "([^"]+)")?')
METRIC = re.compile(r'(?:&str = "|!\("|`)(upwire_[a-z_]+)\b')
# The end of a row of the bounds.
CONSTANT = re.compile(r"\| `(\w+)`, ([\w/.-]+) \|$")
# A constant that bounds something, and the kinds that the page of the bounds leaves out, by their names.
BOUND = re.compile(r"\bconst (\w+_MAX)\b")
NO_BOUND = re.compile(r"BATCH|ATTEMPTS|RETRIES|TRIES|CALLS|DELAY|PER_(?:TICK|KEEP|REGISTRATION)_")
# The other constants that it leaves out, by file or folder and name.
NO_BOUNDS = {
    "aws/src/mailbox.rs": "APART_MAX",  # chooses between two ways to read
    "aws/src/mailbox/sweep.rs": "SCAN_MAX",  # a page
    "aws/src/requests.rs": "SENDS_MAX HIDDEN_MAX KEPT_MAX",  # calls at a time, limits of SQS
    "aws/src/stack.rs": "COMPARISON_MAX",  # of `upwire doctor`
    "aws/src/tenants.rs": "SLOTS_MAX",  # an item
    "aws/src/time.rs": "ANSWER_MAX",  # judges a measurement
    "cli/src/distributor/": "MARGIN_MAX CHECK_INTERVAL_MAX STANZAS_QUEUED_MAX",
    "cli/src/doctor/": "LOG_FILE_BYTES_MAX JOURNAL_BYTES_MAX LOG_BYTES_MAX AGE_MAX NAMED_MAX CLOCK_OFF_MAX",
    "cli/src/http/head.rs": "NAME_BYTES_MAX",  # longer than each name that is looked for
    "embedded/src/database.rs": "QUEUE_MAX",  # the default of a setting
    "embedded/src/file.rs": "STATEMENTS_MAX",  # more than there are
    "functions/src/ingress/legacy_terms.rs": "LEGACY_MAX LEGACY_OF_DOMAIN_MAX",  # defaults of settings
    "push/src/marker.rs": "RESTART_MAX",  # judges a gap
    "relay/src/delivery/line.rs": "ANSWER_INTERVAL_MAX",  # judges a measurement
    "relay/src/delivery/retry.rs": "FAILURES_APART_MAX",  # judges a pause
    "relay/src/jobs/settle/spared.rs": "REST_FACTOR_MAX AGAIN_MAX",  # delays between attempts
    "relay/src/jobs/sweep.rs": "PAGE_MAX COUNTED_MAX",  # pages
    "relay/src/stream/reconnect.rs": "TOLD_MAX RESTART_MAX",  # attempts, and the time between them
}
# A file of the code, with the names of code before it that are to be in it.
NAMED_IN = re.compile(r"((?:`\w+`(?:, | and )?)*)(?: in )?`([\w/-]+/[\w-]+\.rs)`")
# The start of a line, between the words of a comment that goes on.
COMMENT_BREAK = re.compile(r"\n[ \t]*(?://[/!]?|#) ?")


def prose(text):
    """The text without its code blocks; the lines keep their numbers."""
    return FENCE.sub(lambda block: "\n" * block[0].count("\n"), text)


def anchor(heading):
    """The anchor that a forge makes of a heading."""
    heading = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).strip().lower().replace(" ", "-")
    return "".join(c for c in heading if c.isalnum() or c in "-_")


def headings(path):
    return HEADING.findall(prose(path.read_text()))


def line_of(text, position):
    return text.count("\n", 0, position) + 1


def links(path):
    text = prose(path.read_text())
    for link in LINK.finditer(text):
        target, _, fragment = link[1].partition("#")
        if re.match(r"[a-z]+:", target):
            continue
        where = f"{path.relative_to(ROOT)}:{line_of(text, link.start())}"
        file = (path.parent / target).resolve() if target else path
        if not file.exists():
            yield f"{where}: {target} does not exist"
        elif fragment and file.suffix == ".md" and fragment not in map(anchor, headings(file)):
            yield f"{where}: {target or path.name} has no heading #{fragment}"


def citations(path):
    text = path.read_text()
    # Joined lines keep their count, by a character that is no text.
    joined = COMMENT_BREAK.sub("\v", text)
    for citation in CITATION.finditer(joined.replace("\v", " ")):
        where = f"{path.relative_to(ROOT)}:{line_of(joined.replace(chr(11), chr(10)), citation.start())}"
        file = ROOT / citation[1]
        if not file.exists():
            yield f"{where}: {citation[1]} does not exist"
        elif citation[2] and citation[2] not in headings(file):
            yield f"{where}: {citation[1]} has no heading “{citation[2]}”"


def lengths():
    for name, most in [("README.md", README_LINES_MAX), ("ARCHITECTURE.md", ARCHITECTURE_LINES_MAX)]:
        count = len((ROOT / name).read_text().splitlines())
        if count > most:
            yield f"{name}: {count} lines, and {most} at most"


def unlisted():
    # A forge shows the one, mdbook the other.
    for index in ("README.md", "SUMMARY.md"):
        listed = (ROOT / "docs" / index).read_text()
        for page in sorted((ROOT / "docs").rglob("*.md")):
            name = page.relative_to(ROOT / "docs").as_posix()
            if name not in ("README.md", "SUMMARY.md") and f"({name})" not in listed:
                yield f"docs/{index} does not list {name}"


def metrics():
    """Each metric that the code or the docs name is described: a test makes the rows of the page of the descriptions."""
    described = set(re.findall(r"^\| `(upwire_[a-z_]+)", (ROOT / "docs/operations.md").read_text(), re.MULTILINE))
    crates = [path for crate in ("functions", "relay", "cli") for path in (ROOT / crate / "src").rglob("*.rs")]
    for path in [*(ROOT / "docs").rglob("*.md"), *(path for path in crates if "tests" not in path.as_posix())]:
        for name in sorted({*METRIC.findall(path.read_text())} - described):
            yield f"{path.relative_to(ROOT)} names the metric {name}, which is not described"


def constants():
    """Each bound is a constant of the file that the page names."""
    page = (ROOT / "docs/bounds.md").read_text()
    for line in re.findall(r"^\| (?!what |---).*", page, re.MULTILINE):
        named = CONSTANT.search(line)
        path = ROOT / named[2] if named else None
        if not path or not path.is_file() or not re.search(rf"\b{named[1]}\b", path.read_text()):
            yield f"docs/bounds.md: no constant of a file: {line}"


def bounds():
    """Each constant that bounds something is on the page of the bounds, or is none of its kinds."""
    rows = map(CONSTANT.search, (ROOT / "docs/bounds.md").read_text().splitlines())
    page = {row.groups() for row in rows if row}
    for crate in CRATES:
        for path in sorted((ROOT / crate / "src").rglob("*.rs")):
            name = path.relative_to(ROOT).as_posix()
            if "tests" in name:
                continue
            excepted = {one for place, names in NO_BOUNDS.items() if name.startswith(place) for one in names.split()}
            for bound in BOUND.findall(path.read_text().partition("#[cfg(test)]\nmod tests {")[0]):
                if (bound, name) not in page and bound not in excepted and not NO_BOUND.search(bound):
                    yield f"{name}: {bound} is not in docs/bounds.md, nor among the exceptions of infra/links.py"


def directions():
    """Each name of code that CONTRIBUTING.md's table names beside a file is in that file."""
    text = (ROOT / "CONTRIBUTING.md").read_text()
    begin = text.index("## Where to look")
    table = text[begin : text.index("\n## ", begin)]
    for found in NAMED_IN.finditer(table):
        where = f"CONTRIBUTING.md:{line_of(text, begin + found.start(2))}"
        path = ROOT / found[2]
        if not path.is_file():
            yield f"{where}: {found[2]} does not exist"
            continue
        for name in re.findall(r"\w+", found[1]):
            if not re.search(rf"\b{name}\b", path.read_text()):
                yield f"{where}: {found[2]} has no {name}"


def main():
    files = subprocess.run(["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, check=True, capture_output=True, text=True)
    paths = [ROOT / name for name in files.stdout.splitlines() if (ROOT / name).is_file()]
    found = [*lengths(), *unlisted(), *metrics(), *constants(), *bounds(), *directions()]
    for path in paths:
        if path.suffix == ".md":
            found += links(path)
        if path.name == "ARCHITECTURE.md" or (path.suffix in CODE or path.name == "Makefile") and path != Path(__file__).resolve():
            found += citations(path)
    for one in found:
        print(f"links: {one}", file=sys.stderr)
    if not found:
        print("links: every link, anchor and citation leads somewhere")
    return 1 if found else 0


sys.exit(main())
