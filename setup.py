"""Where the files of the installed form go; all else about it is in pyproject.toml.

The three packages are installed as birdsong/_code/{data_io,models,study}, because their names are
too common to lie beside those of other projects: pip would write over files of the same name
without a word. A .pth file makes them importable by their own names; see installed/birdsong.
"""

import shutil
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

CODE = "birdsong._code"
OURS = ("data_io", "models", "study")


class BuildWithPath(build_py):
    """Also writes the .pth file, and leaves nothing of an earlier build in the wheel."""

    def run(self) -> None:
        """Build into an empty folder; an editable installation needs no .pth file."""
        if not self.editable_mode:
            shutil.rmtree(self.build_lib, ignore_errors=True)
        super().run()
        if not self.editable_mode:
            Path(self.build_lib, "birdsong-study.pth").write_text(CODE.replace(".", "/") + "\n")


setup(
    packages=[
        "birdsong",
        *(f"{CODE}.{name}" for name in find_packages(include=[f"{name}*" for name in OURS])),
    ],
    package_dir={"birdsong": "installed/birdsong", **{f"{CODE}.{name}": name for name in OURS}},
    package_data={
        f"{CODE}.study": ["presets/*.yaml"],
        f"{CODE}.study.report": ["*.j2"],
    },
    include_package_data=False,
    cmdclass={"build_py": BuildWithPath},
)
