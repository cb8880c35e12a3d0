"""Commands of benchmarks, as texts give them, and whether the scripts take them.

Run as a program it tries all commands that standard input holds in one process: each process would
import torch and Ray for itself.
"""

import io
import json
import os
import re
import runpy
import shlex
import subprocess
import sys
from argparse import ArgumentParser
from contextlib import redirect_stderr, redirect_stdout
from unittest import mock

from study.base.paths import ROOT

FENCED = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
INLINE = re.compile(r"`((?:[^`\n]|\n(?!\n))+)`")  # of one paragraph
COMMAND = re.compile(r"\S*python (?:-m benchmarks\.(\w+)|benchmarks/(\w+)\.py)(?: (.*))?$")
NUMBERS = ("N", "NUMBER")  # stand for one
LATER = re.compile(r" {2,}| # | && ")  # what follows says something else


def in_document(text):
    """Commands between backticks, which may go over lines, and in blocks of code."""
    lines = [line for block in FENCED.findall(text) for line in block.splitlines()]
    return _commands([*lines, *INLINE.findall(FENCED.sub("", text))])


def in_docstring(text):
    """Commands that stand in lines of their own."""
    return _commands(part for line in text.splitlines() for part in line.strip().split(" && "))


def _commands(lines):
    """Name of the benchmark and words of every command."""
    found = []
    for line in lines:
        if match := COMMAND.match(re.sub(r"\n\s*", " ", line)):
            words = re.sub(r"\[(-[^]]*)\]", r"\1", LATER.split(match[3] or "")[0])
            found.append((match[1] or match[2], [
                "1" if word in NUMBERS else word for word in shlex.split(words) if word != "..."
            ]))  # fmt: skip
    return found


def faults_of(parsed, run):
    """What is wrong with each command, in a process of its own.

    Args:
        parsed: names and words of benchmarks whose options are parsed.
        run: the same of those that are run to their end.

    Returns:
        A list for each of both, "" where nothing is wrong.
    """
    done = subprocess.run(
        [sys.executable, "-m", __name__], input=json.dumps([parsed, run]), cwd=ROOT,
        stdout=subprocess.PIPE, text=True, check=True,
    )  # fmt: skip
    return json.loads(done.stdout.splitlines()[-1])


class _Parsed(BaseException):  # noqa: N818
    """Ends a script whose options are parsed."""


def _fault(name, words, whole):
    """What is wrong with a command, of which the options alone are parsed, or the whole is run."""
    path = str(ROOT / "benchmarks" / f"{name}.py")
    said = io.StringIO()
    parse = ArgumentParser.parse_args

    def parse_alone(parser, *args, **kwargs):
        parse(parser, *args, **kwargs)
        raise _Parsed

    with (
        mock.patch.object(ArgumentParser, "parse_args", parse if whole else parse_alone),
        mock.patch.object(sys, "argv", [path, *words]),
        mock.patch.object(os, "sched_setaffinity", create=True),  # one keeps itself to one core
        redirect_stdout(said), redirect_stderr(said),
    ):  # fmt: skip
        try:
            runpy.run_path(path, run_name="__main__")
        except _Parsed:
            return ""
        except SystemExit as end:
            return f"exit {end.code}: {said.getvalue()[-2000:]}" if end.code else ""
        except Exception as error:
            return f"{type(error).__name__}: {error}"
    if not whole:
        return "it parsed no options"
    return "" if said.getvalue() else "it printed nothing"


if __name__ == "__main__":
    parsed, run = json.load(sys.stdin)
    print(
        json.dumps([[_fault(*one, False) for one in parsed], [_fault(*one, True) for one in run]])
    )
