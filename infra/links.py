#!/usr/bin/env python3
"""Gates what a text names: links and anchors of the docs, citations in code, metrics, bounds, the README's length.

A link in Markdown leads to a file of the repository, and its anchor to a heading there. A comment cites a page by its path
(docs/protocol.md), perhaps with a heading in double quotes after it; both exist.
"""

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
README_LINES_MAX = 150
ARCHITECTURE_LINES_MAX = 150
CODE = {".rs", ".py", ".sh", ".toml", ".yaml", ".yml", ".service", ".timer", ".html", ".lua"}

FENCE = re.compile(r"^(```|~~~).*?^\1[^\n]*$", re.MULTILINE | re.DOTALL)
HEADING = re.compile(r"^#{1,6} +(.+?) *#*$", re.MULTILINE)
LINK = re.compile(r"\[[^\]]*\]\(([^()\s]+)\)")
# A path that a scheme or a host precedes is no file of ours.
CITATION = re.compile(r'(?<![\w/."-])((?:docs/(?:[\w-]+/)?)?[\w-]+\.md)(?:, "([^"]+)")?')
METRIC = re.compile(r'(?:&str = "|!\("|`)(upwire_[a-z_]+)\b')
# The end of a row of the bounds.
CONSTANT = re.compile(r"\| `(\w+)`, ([\w/.-]+) \|$")
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


def main():
    files = subprocess.run(["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, check=True, capture_output=True, text=True)
    paths = [ROOT / name for name in files.stdout.splitlines() if (ROOT / name).is_file()]
    found = [*lengths(), *unlisted(), *metrics(), *constants()]
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
