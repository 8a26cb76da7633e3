#!/usr/bin/env python3
"""Gates how sentences begin, in the docs and in the comments of the code; words.txt has the list."""

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FENCE = re.compile(r"^(```|~~~).*?^\1[^\n]*$", re.MULTILINE | re.DOTALL)
# A sentence begins a paragraph, an item or a cell, or follows another one.
STARTS_DOCS = r"(?:^\s*|^\s*(?:[-*]|\d+\.)\s+(?:\*\*[^*]+\*\*\s+)?|\|\s+|[.!?:]\)?\s+)"
STARTS_CODE = r"(?:[.!?:]\)?\s+|\A\s*)"
COMMENT = re.compile(r"((?:^[ \t]*(?://[/!]?|#)(?!\[|!).*\n)+)", re.MULTILINE)
# A table of bad and good examples.
EXAMPLES = re.compile(r"^\| not \| but \|\n(?:\|.*\n)+", re.MULTILINE)
MARKER = re.compile(r"^[ \t]*(?://[/!]?|#)[ \t]?", re.MULTILINE)


def listed():
    lines = (ROOT / "infra/words.txt").read_text().splitlines()
    return [line for line in lines if line and not line.startswith("#")]


def openers(words, starts):
    return re.compile(rf"{starts}({'|'.join(map(re.escape, words))})\b(?=([^.?!]*)([.?!]|$))", re.MULTILINE)


def paragraphs(path):
    """The texts of a file in which sentences are, each with its line."""
    text = path.read_text()
    if path.suffix == ".md":
        for left_out in (FENCE, EXAMPLES):
            text = left_out.sub(lambda block: "\n" * block[0].count("\n"), text)
        yield 1, text
    else:
        for comment in COMMENT.finditer(text):
            yield text.count("\n", 0, comment.start()) + 1, MARKER.sub("", comment[0])


def main():
    words = listed()
    docs, code = openers(words, STARTS_DOCS), openers(words, STARTS_CODE)
    rules = {".md": docs, ".rs": code, ".py": code}
    files = subprocess.run(["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, check=True, capture_output=True, text=True)
    failed = False
    for path in map(ROOT.joinpath, files.stdout.splitlines()):
        if path.suffix not in rules or not path.is_file():
            continue
        for first, text in paragraphs(path):
            for found in rules[path.suffix].finditer(text):
                if found[3] == "?":
                    continue
                line = first + text.count("\n", 0, found.start(1))
                print(f"words: {path.relative_to(ROOT)}:{line}: a sentence begins with “{found[1]}”: name its subject", file=sys.stderr)
                failed = True
    if not failed:
        print("words: sentences begin with their subjects, as far as the list knows")
    return failed


sys.exit(main())
