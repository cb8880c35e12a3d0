"""What is on a disk for sure: states in which a kill or a power cut leaves a folder.

`Disk` keeps, beside the tree as it is, the content of every file as of its last sync, and the names
in every folder as of the last sync of that folder. At each point it gives up to five states, of
which a file system may leave any:

as it is            the process was killed
half written        as it is; files that were not synced since their last change are cut to half
synced alone        names and content as of their last sync
names first         names as they are, content as of its last sync: empty files after a rename
removals first      synced alone, and what was removed is gone, though renames are lost

A rename inside a folder is whole or not there: what it replaced is gone only with it. Files are
told apart by their inodes.
"""

import hashlib
import os
import pickle
import sys
import threading
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

KINDS = ("as it is", "half written", "synced alone", "names first", "removals first")
CHANGES = ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.link", "os.truncate")
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND

# Path below the folder, and content with time of change (ns); None for a folder.
Tree = tuple[tuple[str, tuple[str, int] | None], ...]


@dataclass
class Content:
    """Content of a file, and what tells without reading it that it is the same."""

    sha256: str
    mtime_ns: int
    facts: tuple = ()

    @property
    def entry(self):
        return (self.sha256, self.mtime_ns)


@dataclass
class Disk:
    """The model of one folder; all that is there at first is on the disk.

    Attributes:
        root: the folder.
        blobs: bytes by their hash.
    """

    root: Path
    blobs: dict[str, bytes] = field(default_factory=dict)

    def __post_init__(self):
        self._files, self._folders = {}, {}
        self._replaced = set()  # inodes that a rename put another one in the place of
        self.look()
        self._safe_files = dict(self._files)
        self._safe_folders = dict(self._folders)

    def look(self):
        """Take in the tree as it is now."""
        files, folders, waiting = {}, {}, [self.root]
        while waiting:
            folder = waiting.pop()
            names = {}
            for entry in os.scandir(folder):
                try:
                    facts = entry.stat(follow_symlinks=False)
                    if not entry.is_dir(follow_symlinks=False):
                        files[facts.st_ino] = self._content(entry.path, facts)
                    else:
                        waiting.append(Path(entry.path))
                except FileNotFoundError:  # another thread removes it just now
                    continue
                names[entry.name] = (facts.st_ino, entry.is_dir(follow_symlinks=False))
            folders[folder.stat().st_ino] = names
        # An inode that was free for a while is another file.
        for known in (self._safe_files, self._safe_folders) if self._files else ():
            for inode in known.keys() & (files.keys() | folders.keys()):
                if inode not in self._files and inode not in self._folders:
                    del known[inode]
        self._files, self._folders = files, folders

    def _content(self, path, facts):
        tell = (facts.st_size, facts.st_mtime_ns, facts.st_ctime_ns)
        known = self._files.get(facts.st_ino)
        if known is not None and known.facts == tell:
            return known
        return Content(self._keep(Path(path).read_bytes()), facts.st_mtime_ns, tell)

    def _keep(self, content):
        sha256 = hashlib.sha256(content).hexdigest()
        self.blobs[sha256] = content
        return sha256

    def renamed(self, to):
        """Something is about to be renamed to ``to``: if that is lost, what was there is not."""
        with suppress(OSError):
            self._replaced.add(Path(to).lstat().st_ino)

    def synced(self, descriptor):
        """A file or a folder was synced."""
        self.look()
        inode = os.fstat(descriptor).st_ino
        if inode in self._files:
            self._safe_files[inode] = self._files[inode]
        if inode in self._folders:
            self._safe_folders[inode] = self._folders[inode]

    def states(self):
        """The states of now, by kind: each a `Tree`."""
        now, safe = self._files, self._safe_files

        def half(inode):
            known = safe.get(inode)
            if known is not None and known.sha256 == now[inode].sha256:
                return now[inode].entry
            content = self.blobs[now[inode].sha256]
            return (self._keep(content[: len(content) // 2]), now[inode].mtime_ns)

        def as_synced(inode):
            known = safe.get(inode)
            return known.entry if known is not None else (self._keep(b""), 0)

        def is_there(inode):
            return inode in now or inode in self._folders or inode in self._replaced

        top = self.root.stat().st_ino
        return {
            "as it is": _tree(self._folders, top, lambda inode: now[inode].entry),
            "half written": _tree(self._folders, top, half),
            "synced alone": _tree(self._safe_folders, top, as_synced),
            "names first": _tree(self._folders, top, as_synced),
            "removals first": _tree(self._safe_folders, top, as_synced, is_there),
        }


def _tree(folders, top, content, is_there=lambda inode: True) -> Tree:
    found, waiting = [], [("", top)]
    while waiting:
        at, inode = waiting.pop()
        for name, (child, is_folder) in folders.get(inode, {}).items():
            path = f"{at}/{name}" if at else name
            if not is_there(child):
                continue
            found.append((path, None if is_folder else content(child)))
            if is_folder:
                waiting.append((path, child))
    return tuple(sorted(found))


def build(tree, blobs, root):
    """Write a state to an empty folder, times of change included."""
    for path, entry in tree:
        if entry is None:
            (root / path).mkdir()
        else:
            (root / path).write_bytes(blobs[entry[0]])
            os.utime(root / path, ns=(entry[1], entry[1]))


def states_while(folder, work):
    """Every different state of ``folder`` while a child process does ``work``; and the blobs."""
    reader, writer = os.pipe()
    if (pid := os.fork()) == 0:
        code = 1
        try:
            os.close(reader)
            disk, found = Disk(folder), {}
            watch(disk, lambda event: found.update(dict.fromkeys(disk.states().values())))
            work()
            disk.look()
            found.update(dict.fromkeys(disk.states().values()))
            with open(writer, "wb") as file:  # noqa: PTH123
                pickle.dump((list(found), disk.blobs), file)
            code = 0
        finally:
            os._exit(code)
    os.close(writer)
    with open(reader, "rb") as file:  # noqa: PTH123
        content = file.read()
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    return pickle.loads(content)


def watch(disk, at_point):
    """From now on call ``at_point(event)`` before every change below the folder, in this process.

    A hook of this kind cannot be taken away again: watch in a process of its own.
    """
    lock, busy = threading.RLock(), threading.local()

    def point(event, args=()):
        if getattr(busy, "is_on", False):
            return
        with lock:
            busy.is_on = True
            try:
                disk.look()
                at_point(event)
                if event == "os.rename":
                    disk.renamed(args[1])
            finally:
                busy.is_on = False

    def hook(event, args):
        if event in CHANGES or (event == "open" and _is_write(args)):
            path = args[0]
            # A path that is no text, or not absolute, may lie anywhere: a look too many is cheap.
            outside = isinstance(path, str) and path.startswith("/")
            if not (outside and not path.startswith(str(disk.root))):
                point(event, args)

    fsync = os.fsync

    def watched_fsync(descriptor):
        point("os.fsync")
        fsync(descriptor)
        number = descriptor if isinstance(descriptor, int) else descriptor.fileno()
        with lock:
            busy.is_on = True
            try:
                disk.synced(number)
            finally:
                busy.is_on = False

    sys.addaudithook(hook)
    os.fsync = watched_fsync


def _is_write(args):
    _, mode, flags = args
    if isinstance(mode, str):
        return bool(set(mode) & set("wax+"))
    return bool(isinstance(flags, int) and flags & _WRITES)
