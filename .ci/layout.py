#!/usr/bin/env python3
"""Checks src: each file uses only the files above it, imports name the module that defines a thing, and files and
functions are short. Lines of code are those without blanks, comments and tests. Expects code that rustfmt laid out."""

import pathlib
import re
import sys

MAX_FILE, MAX_FUNCTION = 340, 40
# The one loop, which reads best as a whole.
LONG = {("poll", "poll")}

ROOT = pathlib.Path(__file__).resolve().parent.parent
SRC = ROOT / "src"
# The rows of the table in CONTRIBUTING.md: each file uses only those above it.
ORDER = re.findall(r"^\| `src/(\S+)\.rs` \|", (ROOT / "CONTRIBUTING.md").read_text(), flags=re.M)
MODULES = [name.removesuffix("/mod").split("/")[-1] for name in ORDER]
faults = []


def is_code(line):
    return line.strip() and not line.strip().startswith("//")


def code_of(name):
    """The lines of code."""
    text = (SRC / f"{name}.rs").read_text()
    text = re.sub(r"^#\[cfg\(test\)\]\nmod \w+ \{\n.*?^\}\n", "", text, flags=re.M | re.S)
    return [line for line in text.splitlines() if is_code(line)]


def check_functions(name, lines):
    for start, line in enumerate(lines):
        if not (function := re.match(r"( *)(?:pub(?:\(\w+\))? )?(?:const )?fn (\w+)", line)):
            continue
        indent, title = function.groups()
        end = next(n for n in range(start, len(lines)) if re.match(indent + r"(\}|\S.*[;}])$", lines[n]))
        if end - start >= MAX_FUNCTION and (name, title) not in LONG:
            faults.append(f"src/{name}.rs: the function {title} has {end - start + 1} lines of code")


def check_uses(name, position, lines):
    for line in lines:
        line = line.split("//")[0]
        for path, module in re.findall(r"((?:\w+::)*\{?)\b(\w+)::", line):
            if module in MODULES and MODULES.index(module) > position and not path.startswith(("std::", "ureq::")):
                faults.append(f"src/{name}.rs is above {module}, and uses it: {line.strip()}")
    # What stands in the outermost braces, or in none.
    for names in re.findall(r"\bcrate::(\w+|\{(?:[^{}]|\{[^{}]*\})*\})", "\n".join(lines)):
        for item in re.findall(r"\b[A-Z]\w*", re.sub(r"::(\w+|\{[^{}]*\})", "", names)):
            faults.append(f"src/{name}.rs uses crate::{item}: name the module that defines it")


def main():
    files = {str(path.relative_to(SRC).with_suffix("")) for path in SRC.rglob("*.rs")}
    known = {*ORDER, "lib", *(name for name in files if name.startswith("simulator"))}
    faults.extend(f"src/{name}.rs: either the file is missing, or its row in the table of CONTRIBUTING.md" for name in files ^ known)
    for name in sorted(files & known):
        lines = code_of(name)
        check_functions(name, lines)
        if len(lines) > MAX_FILE and not name.startswith("simulator"):
            faults.append(f"src/{name}.rs has {len(lines)} lines of code")
        if name in ORDER:
            check_uses(name, ORDER.index(name), lines)
    sys.exit("\n".join(faults) or 0)


main()
