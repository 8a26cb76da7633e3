#!/usr/bin/env python3
"""Gates the arrows between the files of each crate: no circle, and in the relay the order of its layers.

A file has an arrow to each file whose items it names. `mod x;` alone is none, nor is a re-export: an arrow through one
goes to the file that has the item. Within a crate, none goes through a re-export of its root. The parts of a file, in the
folder of its name, may name it, and all may name the crate's root where no layer forbids it. Tests may name anything. A
method's call names no file: what it hides is not seen.
"""

import re
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
CRATES = ["push", "embedded", "aws", "functions", "relay", "cli", "tests"]
# Files of a layer may name the files of the layers after the colon, beside their own and beside those of no layer;
# files of no layer may name none that is in one.
LAYERS = {
    "relay": {
        "lib": "driver jobs delivery stream",
        "driver": "jobs delivery stream",
        "jobs": "delivery stream",
        "delivery": "stream",
        "stream": "",
    },
}

# Comments, strings and characters; what is in them is no code.
NO_CODE = re.compile(r'//[^\n]*|/\*.*?\*/|b?r(#*)".*?"\1|b?"(?:\\.|[^"\\])*"|b?\'(?:\\.[^\']*|[^\'\\])\'', re.DOTALL)
TESTS = re.compile(r"#\[cfg\((?:test|all\(test\b[^\]]*)\)\]\s*(?:#\[[^\]]*\]\s*)*(?:pub(?:\([^)]*\))? )?mod \w+\s*(\{|;)")
USE = re.compile(r"\b(pub(?:\([^)]*\))?\s+)?use\s+([^;]+);")
PATH = re.compile(r"(?<![\w:])(?:\w+::)+\w+")


def code_of(path):
    """The code of a file, without its tests and what is no code; each character stays on its line."""
    text = NO_CODE.sub(lambda found: re.sub(r"[^\n]", " ", found[0]), path.read_text())
    while found := TESTS.search(text):
        end = found.end()
        depth = 1 if found[1] == "{" else 0
        while depth:
            depth += {"{": 1, "}": -1}.get(text[end], 0)
            end += 1
        text = text[: found.start()] + re.sub(r"[^\n]", " ", text[found.start() : end]) + text[end:]
    return text


def leaves(tree):
    """The paths that a `use` names, each with the name that it gets; `*` for all that is there."""
    tree = re.sub(r"\s+", " ", tree).strip()
    if found := re.fullmatch(r"(.*?)(?:::)?\s*\{(.*)\}", tree):
        start = [step for step in found[1].strip().split("::") if step]
        depth, part = 0, ""
        for character in found[2] + ",":
            depth += {"{": 1, "}": -1}.get(character, 0)
            if character == "," and depth == 0:
                if part.strip():
                    yield from ((start + path, name) for path, name in leaves(part))
                part = ""
            else:
                part += character
        return
    path, _, name = tree.partition(" as ")
    path = [step.strip() for step in path.split("::") if step.strip()]
    if path[-1] == "self":
        path = path[:-1]
    yield path, name.strip() or (path[-1] if path else "")


class Module:
    """A file: its place in the tree of modules, the names that its `use` brings, and the paths in its code."""

    def __init__(self, path, parent):
        self.path, self.parent, self.children, self.names, self.named = path, parent, {}, {}, []
        code = code_of(path)
        for found in USE.finditer(code):
            line = code.count("\n", 0, found.start()) + 1
            for steps, name in leaves(found[2]):
                if name == "*":
                    self.names.setdefault("*", []).append(steps[:-1])
                else:
                    self.names[name] = steps
                if not found[1]:
                    self.named.append((steps, line))
        without_uses = USE.sub(lambda found: re.sub(r"[^\n]", " ", found[0]), code)
        for found in PATH.finditer(without_uses):
            self.named.append((found[0].split("::"), without_uses.count("\n", 0, found.start()) + 1))
        folder = path.parent if path.stem in ("lib", "main", "mod") else path.with_suffix("")
        for found in re.finditer(r"\bmod\s+(\w+)\s*;", code):
            for file in (folder / f"{found[1]}.rs", folder / found[1] / "mod.rs"):
                if file.exists():
                    self.children[found[1]] = Module(file, self)

    def name(self):
        return self.path.relative_to(ROOT).as_posix()

    def all(self):
        yield self
        for child in self.children.values():
            yield from child.all()

    def is_part_of(self, other):
        """Whether it is in the folder of the other's name, at any depth."""
        above = self.parent
        while above and above is not other:
            above = above.parent
        return above is not None

    def root(self):
        return self if self.parent is None else self.parent.root()

    def find(self, steps, seen=()):
        """The file that has the item of this path; `None`: it is none of the crate's."""
        if (self, tuple(steps)) in seen:
            return None
        seen = (*seen, (self, tuple(steps)))
        if not steps or steps == ["*"]:
            return self
        first, rest = steps[0], steps[1:]
        if first == "crate":
            return self.root().inside(rest, seen)
        if first == "self":
            return self.inside(rest, seen)
        if first == "super":
            return self.parent.find(["self", *rest], seen) if self.parent else None
        if first in self.children:
            return self.children[first].inside(rest, seen)
        if first in self.names and self.names[first][:1] != [first]:
            return self.find(self.names[first] + rest, seen)
        for steps in self.names.get("*", []):
            inside = self.find(steps, seen)
            if inside and inside is not self and (first in inside.children or first in inside.names):
                return inside.inside([first, *rest], seen)
        return None

    def inside(self, steps, seen):
        """As `find`, of a path that begins in this module: what nothing brings here is an item of the file's own."""
        if not steps or steps == ["*"] or "super" == steps[0]:
            return self.find(steps, seen)
        if steps[0] in self.children or steps[0] in self.names:
            return self.find(steps, seen)
        return self.find(steps, seen) or self


def arrows(root):
    """From each file to the files that it names, each with the first line that does."""
    found = {}
    for module in root.all():
        found[module] = {}
        for steps, line in module.named:
            named = module.find(steps)
            if named and named is not module:
                found[module].setdefault(named, line)
    return found


def circles(arrows):
    """The sets of files that reach each other (Tarjan), but for the arrows from a part to what it is a part of."""
    graph = {file: [other for other in named if not file.is_part_of(other)] for file, named in arrows.items()}
    index, low, stack, found = {}, {}, [], []

    def visit(node):
        index[node] = low[node] = len(index)
        stack.append(node)
        for other in graph[node]:
            if other not in index:
                visit(other)
                low[node] = min(low[node], low[other])
            elif other in stack:
                low[node] = min(low[node], index[other])
        if low[node] == index[node]:
            at = stack.index(node)
            found.append(stack[at:])
            del stack[at:]

    for node in graph:
        if node not in index:
            visit(node)
    return [circle for circle in found if len(circle) > 1]


def layer(module, source):
    """The file or folder at the top of the crate that this file is or is in."""
    return module.path.relative_to(source).parts[0].removesuffix(".rs")


def circle_complaints(graph):
    for circle in circles(graph):
        yield "a circle of files: " + " ".join(sorted(module.name() for module in circle))
        for module in circle:
            for other, line in graph[module].items():
                if other in circle and not module.is_part_of(other):
                    yield f"  {module.name()}:{line} names {other.name()}"


def layer_complaints(graph, layers, source):
    for module, named in graph.items():
        mine = layer(module, source)
        for other, line in named.items():
            theirs = layer(other, source)
            if theirs in layers and theirs != mine and theirs not in layers.get(mine, "").split():
                yield f"{module.name()}:{line} names {other.name()}, and {mine} is not above {theirs}"


def detour_complaints(root):
    for module in filter(lambda module: module is not root, root.all()):
        for steps, line in module.named:
            if steps[0] == "crate" and len(steps) > 1 and steps[1] in root.names:
                home = "::".join(["crate", *root.names[steps[1]][: -1]])
                yield f"{module.name()}:{line} names {steps[1]} through the crate's root: it is in {home}"


def main():
    failed = False
    for crate in CRATES:
        source = ROOT / crate / "src"
        for root in filter(Path.exists, (source / "lib.rs", source / "main.rs")):
            root = Module(root, None)
            graph = arrows(root)
            found = [
                *circle_complaints(graph),
                *layer_complaints(graph, LAYERS.get(crate, {}), source),
                *detour_complaints(root),
            ]
            for complaint in found:
                print(f"circles: {complaint}", file=sys.stderr)
            failed |= bool(found)
    return failed


if __name__ == "__main__":
    sys.exit(main())
