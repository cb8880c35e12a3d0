"""The documents: lines that can be read, numbers with the command that measures them."""

import re

import pytest

from study.base.paths import ROOT

WIDTH = 120
# With a line longer than that, and not rewrapped yet.
WIDE = {"docs/security.md"}
DOCUMENTS = [
    path.relative_to(ROOT).as_posix()
    for path in sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("mlflow/*.md")])
]
# Of a table row, link or picture no line can be broken.
UNBREAKABLE = re.compile(r"\||!?\[[^\]]*\]\(\S+\)$|https?://\S+$")
COMMAND = re.compile(
    r"python -m benchmarks\.\w+|make [a-z-]+|study/run_tune\.py|birdsong --|pytest "
)
# A short cell that begins with a number: longer ones are prose.
NUMBERS = re.compile(r"^\|.*\| *(?:under |about )?[-*]*\d[^|\n]{0,30}\|", re.MULTILINE)


def text_of(document):
    return (ROOT / document).read_text("utf-8")


def wide_lines(text):
    """Prose lines above the width; code blocks stay as they are."""
    prose = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    return [line for line in prose.splitlines()
            if len(line) > WIDTH and not UNBREAKABLE.match(line)]  # fmt: skip


def sections(text):
    """Text below each heading of the second level, by its words."""
    parts = re.split(r"^## (.+)$", text, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def without_command(text):
    """Headings of sections that show numbers in a table and name no command."""
    return [heading for heading, body in sections(text).items()
            if NUMBERS.search(body) and not COMMAND.search(body)]  # fmt: skip


@pytest.mark.parametrize("document", [name for name in DOCUMENTS if name not in WIDE])
def test_no_line_of_a_document_is_too_long(document):
    assert wide_lines(text_of(document)) == []


@pytest.mark.parametrize("document", ["README.md", "BENCHMARKS.md", "RECORDS.md"])
def test_numbers_stand_beside_the_command_that_measures_them(document):
    if not (ROOT / document).exists():
        pytest.skip(f"there is no {document}")
    assert without_command(text_of(document)) == []


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_benchmark_that_a_document_names_is_there(document):
    named = re.findall(r"benchmarks[./]([a-z_]+)", text_of(document))
    missing = [name for name in named if not (ROOT / "benchmarks" / f"{name}.py").is_file()]
    assert missing == []


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_target_that_a_document_names_is_in_the_makefile(document):
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = set(re.findall(r"(?:`|^)make ([a-z-]+)", text_of(document), re.MULTILINE))
    assert named - targets == set()


def test_a_table_without_a_command_is_found():
    words = "| snippet | 16 frames of a spectrogram, which are 64 ms |"
    text = f"# T\n## Speed\n| a | **1 s** |\n## Words\n{words}\n## Told\n`make smoke`\n| b | 2 |\n"
    assert without_command(text) == ["Speed"]


def test_a_wide_line_is_found_outside_of_code_and_tables():
    long = "word " * 30
    assert wide_lines(f"{long}\n```\n{long}\n```\n| {long} |\n") == [long]
