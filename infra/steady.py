#!/usr/bin/env python3
"""Finds in the tests what makes them fail on a busy machine alone, and names the mend.

A value that moves may not be read once: it is waited for. Time may not be waited for: a condition is. Deadlines are for
what never comes: a busy machine keeps them, too.
"""

import re
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
# Here a delay is the thing itself: between two looks or two tries, before an answer that comes late, in a plan.
SLEEPS = re.compile(r"tests/src/(wait|load|line|phone/session)\.rs|tests/src/(chaos|bench)/")
DEADLINE_SECONDS_MIN = 60

ASSERTION = re.compile(r"\b(?:debug_)?(?:assert|assert_eq|assert_ne|ensure)!\s*\(")
READ_ONCE = [
    (r"\.measure\(", "a metric", "upwire.metric_is(…), metric_reaches(…) or never_counted(…)"),
    (r"\.pushes\(\)", "what a phone has got so far", "phone.has_got(…), has_got_count(…) or wait_for_body(…)"),
    (r"\.(depth|peek)\(", "what is in a queue", "emulator.queue_holds(…) or queue_shows(…)"),
    (r"\.log\(\)\.(?!is_empty)", "a log", "upwire.log_line(…), log_lines(…) or never_logged(…)"),
    (r"\.met\(\)", "whether a trouble has been met", "eventually(…)"),
    (r"\.missing\(", "what has not arrived", "ledger.arrives(…) or has_not_begun_to_arrive(…)"),
    (r"\.elapsed\(\)", "the clock", "a condition that tells the same, with a deadline for what never comes"),
]
WAITS = r"(?:eventually|eventually_some|settles|next_push|wait_exit|wait_for_pushes|takes_over)"
SHORT = re.compile(rf"\b{WAITS}\((?:[^()]*, *)?Duration::from_(?:millis\(|secs\((\d+)\))|const SOON: Duration = Duration::from_secs\((\d+)\)")


def closing(text, start):
    """Where the parenthesis closes that opens right before `start`; strings and comments are passed over."""
    depth = 1
    token = re.compile(r'//[^\n]*|r#".*?"#|b?"(?:\\.|[^"\\])*"|\'(?:\\.|[^\'\\])\'|[()]', re.DOTALL)
    for found in token.finditer(text, start):
        depth += {"(": 1, ")": -1}.get(found[0], 0)
        if depth == 0:
            return found.start()
    return len(text)


def complaints(path):
    name, text = path.relative_to(ROOT).as_posix(), path.read_text()
    code = re.sub(r"//[^\n]*", lambda comment: " " * len(comment[0]), text)
    end_to_end = name.startswith("tests/e2e/")
    if end_to_end:
        for assertion in ASSERTION.finditer(code):
            asserted = code[assertion.end() : closing(code, assertion.end())]
            for pattern, what, mend in READ_ONCE:
                if found := re.search(pattern, asserted):
                    yield assertion.end() + found.start(), f"{what} is read once in an assertion; use {mend}"
        for found in re.finditer(r"\.measure\(", code):
            yield found.start(), "a metric is read once; use upwire.metric_is(…) or metric_reaches(…)"
        for found in SHORT.finditer(code):
            seconds = next((int(number) for number in found.groups() if number), 0)
            if seconds < DEADLINE_SECONDS_MIN:
                yield found.start(), f"a deadline that a busy machine misses; {DEADLINE_SECONDS_MIN} s at least, as SOON"
    if not SLEEPS.match(name):
        for found in re.finditer(r"\bsleep(_until)?\(", code):
            mend = "wait on a condition: eventually(…), upwire.metric_is(…)"
            if end_to_end:
                mend += "; where the passing of time is what is tested: time_passes(…)"
            yield found.start(), f"a sleep; {mend}"


def main():
    folders = ["e2e", "src", "chaos", "chaos_short"]
    files = sorted(path for folder in folders for path in (ROOT / "tests" / folder).rglob("*.rs"))
    failed = False
    for path in files:
        text = path.read_text()
        for at, complaint in complaints(path):
            print(f"{path.relative_to(ROOT)}:{text.count(chr(10), 0, at) + 1}: {complaint}", file=sys.stderr)
            failed = True
    if failed:
        sys.exit(1)
    print(f"steady: {len(files)} files of tests wait where they have to")


if __name__ == "__main__":
    main()
