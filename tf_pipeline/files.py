"""Write files and folders whole or not at all, also if the process is killed or another one writes there too."""

import contextlib
import ctypes
import errno
import filecmp
import os
import re
import secrets
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows: without locks, nothing is removed that another process may still be writing
    fcntl = None

# Names of files and folders until they are complete. Their writers hold a lock on them, which ends with the
# process.
STAGING = re.compile(r"\.saving-[0-9a-z_]{8}")
_AT_FDCWD = -100
_RENAME_EXCHANGE = 2


@contextlib.contextmanager
def atomic_file(path: str | os.PathLike) -> Iterator[Path]:
    """Yield a file to write, which is moved to ``path`` at the end, or removed if the block fails.

    A link is followed, and a file that is replaced keeps its permissions. Where no file can be moved to, such as
    ``/dev/stdout``, ``path`` itself is yielded.

    Raises:
        OSError: if the folder is not there or cannot be written to.
    """
    target = Path(os.path.realpath(path))
    if target.exists() and not target.is_file():
        yield Path(path)
        return
    if not target.parent.is_dir():
        raise FileNotFoundError(errno.ENOENT, "There is no folder to write to", str(path))
    temporary = target.with_name(_new_name())
    with _locked(target.parent):
        _remove_litter(target.parent)
        temporary.touch(exist_ok=False)
        lock = _lock(temporary, wait=False)
    try:
        yield temporary
        if target.exists():
            shutil.copymode(target, temporary)
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)
        _unlock(lock)


def write_text(path: str | os.PathLike, text: str) -> None:
    """Write a UTF-8 file through :func:`atomic_file`."""
    with atomic_file(path) as file:
        file.write_text(text, encoding="utf-8")


@contextlib.contextmanager
def atomic_folder(
    path: str | os.PathLike, seal: str | None = None, obsolete: Callable[[str], bool] = lambda name: False
) -> Iterator[Path]:
    """Yield an empty folder whose files are put into ``path`` at the end, or dropped if the block fails.

    Other files in ``path`` stay. A new folder appears whole. In one that exists, files are moved into place one by one,
    folders last. With a ``seal`` its content changes as a whole: the folder is exchanged for a new one, into which
    the other files are linked. Where that is not possible (the folder is a mount point or holds the current directory,
    its parent cannot be written to, its owner is another, or the system lacks ``renameat2``), the seal is removed
    first and put back last. Of several processes that write to one folder, each puts all its files in place at once.

    Args:
        path: the folder; made if it does not exist.
        seal: the file without which nobody reads the folder, such as ``config.json``; one of those written.
        obsolete: tells by the name of a file in ``path``, or of a folder with a slash at its end, whether to remove it
            unless it is written again.

    Raises:
        ValueError: if ``path`` is empty.
        NotADirectoryError: if ``path`` is a file.
        FileExistsError: if a folder is written that ``path`` has already, and there is no seal.
    """
    if not os.fspath(path):
        raise ValueError("The name of the folder to save to is empty; '.' is the current one.")
    target = Path(os.path.realpath(path))
    if target.exists() and not target.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, f"{target} is a file; give a folder to save to")
    target.parent.mkdir(parents=True, exist_ok=True)
    with _locked(target.parent, target):
        _remove_litter(target, target.parent)
        staging = _new_staging(target)
        lock = _lock(staging, wait=False)
    try:
        yield staging
        with _locked(target.parent, target):
            _put_in_place(staging, target, seal, obsolete)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
        _unlock(lock)


# ------------------------------------------------------------------------------------------------------------ locks


def _lock(path: Path, wait: bool) -> int | None:
    """Lock a file or folder until it is unlocked or the process ends; ``None`` if that cannot be done."""
    if fcntl is None:
        return None
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        return None
    return descriptor


def _unlock(descriptor: int | None) -> None:
    if descriptor is not None:
        fcntl.flock(descriptor, fcntl.LOCK_UN)  # closing alone would leave it to a process forked meanwhile
        os.close(descriptor)


@contextlib.contextmanager
def _locked(*folders: Path) -> Iterator[None]:
    """Wait for the lock of the first folder that can be locked and hold it; a system without locks does without.

    A staging folder is its writer's alone, who holds its lock already and would wait for itself.
    """
    shared = (folder for folder in folders if not STAGING.fullmatch(folder.name))
    lock = next((lock for folder in shared if (lock := _lock(folder, wait=True)) is not None), None)
    try:
        yield
    finally:
        _unlock(lock)


# ---------------------------------------------------------------------------------------------------------- staging


def _new_name() -> str:
    return f".saving-{secrets.token_hex(4)}"


def _new_staging(target: Path) -> Path:
    """An empty folder next to ``target`` if they can be exchanged, or else in it, from where files can be moved."""
    name = _new_name()
    sibling = target.with_name(name)
    if not target.is_dir():
        sibling.mkdir()
        return sibling
    inside = target / name
    inside.mkdir(mode=0o700)  # what becomes of a private folder is private
    if not _holds_current_directory(target):
        with contextlib.suppress(OSError):  # the parent is read-only or another file system
            inside.rename(sibling)
            return sibling
    return inside


def _staged(folder: Path) -> list[Path]:
    """The unfinished files and folders in a folder."""
    with contextlib.suppress(OSError):
        return [path for path in folder.iterdir() if STAGING.fullmatch(path.name) and not path.is_symlink()]
    return []


def _remove_litter(*folders: Path) -> None:
    """Remove files that killed writers left; a file that can be locked has no living writer."""
    for path in (path for folder in folders for path in _staged(folder)):
        if (lock := _lock(path, wait=False)) is not None:
            with contextlib.suppress(OSError):
                shutil.rmtree(path) if path.is_dir() else path.unlink()
            _unlock(lock)


def _holds_current_directory(folder: Path) -> bool:
    try:
        return Path.cwd().is_relative_to(folder)
    except FileNotFoundError:  # it has been removed
        return False


# ---------------------------------------------------------------------------------------------------- into place


def _put_in_place(staging: Path, target: Path, seal: str | None, obsolete: Callable[[str], bool]) -> None:
    # Folders last: who sees one, such as a server a new version, finds the files next to it in place.
    names = sorted(os.listdir(staging), key=lambda name: ((staging / name).is_dir(), name))
    readable = (target if target.exists() else staging).stat().st_mode & 0o044
    for file in filter(Path.is_file, map(staging.joinpath, names)):
        program = file.stat().st_mode & 0o100
        file.chmod(0o600 | readable | (0o100 | readable >> 2 if program else 0))
    if not target.exists():
        staging.rename(target)
        return
    others = (file for file in target.iterdir() if file.name not in names)
    stale = [file.name for file in others if obsolete(f"{file.name}/" if file.is_dir() else file.name)]
    changed = [name for name in names if not _same(staging / name, target / name)]
    if seal is None:
        _refuse_existing(target, [name for name in changed if (staging / name).is_dir()])
    elif len(changed) + len(stale) > 1:
        if _exchanged(staging, target, names, stale):
            return
        (target / seal).unlink(missing_ok=True)
        changed = [name for name in changed if name != seal] + [seal]
    _move(staging, target, changed, stale, last=seal)


def _same(new: Path, old: Path) -> bool:
    """Whether a file is there already, with the same content and permissions."""
    if not (new.is_file() and old.is_file()):
        return False
    return new.stat().st_mode == old.stat().st_mode and filecmp.cmp(new, old, shallow=False)


def _refuse_existing(target: Path, folders: Sequence[str]) -> None:
    if taken := [str(target / name) for name in folders if (target / name).exists()]:
        raise FileExistsError(errno.EEXIST, f"{', '.join(taken)} has been made in the meantime; nothing was changed")


def _move(staging: Path, target: Path, changed: Sequence[str], stale: Sequence[str], last: str | None) -> None:
    """Change a folder file by file; ``last`` comes when all else is there, and what is stale has gone."""
    for name in changed:
        if name == last:
            _remove(target, stale)
        if (target / name).is_dir():
            (target / name).rename(staging / f".replaced-{name}")
        (staging / name).replace(target / name)
    _remove(target, stale)


def _remove(folder: Path, names: Sequence[str]) -> None:
    for name in names:
        if (folder / name).is_dir():
            shutil.rmtree(folder / name)
        else:
            (folder / name).unlink(missing_ok=True)


def _exchanged(staging: Path, target: Path, names: Sequence[str], stale: Sequence[str]) -> bool:
    """Complete ``staging`` with the other files of ``target`` and exchange both; false if that cannot be done."""
    replaced = {*names, *stale}
    # Who writes in the folder knows it by its path, and whose staging folder it is holds a lock on it.
    if _staged(target) or _holds_current_directory(target) or STAGING.fullmatch(target.name):
        return False
    try:
        _link(target, staging, replaced)
        os.utime(staging)
        _exchange(staging, target)
    except OSError:
        return False
    _bring_over(staging, target, replaced)
    return True


def _link(source: Path, copy: Path, without: set[str] = frozenset()) -> None:
    """Make a folder like another, of the same owner and with links to its files.

    Raises:
        OSError: if it would not be alike.
    """
    with os.scandir(source) as entries:
        for entry in entries:
            if entry.name in without:
                continue
            if entry.is_dir(follow_symlinks=False):
                (copy / entry.name).mkdir()
                _link(Path(entry.path), copy / entry.name)
            else:
                os.link(entry.path, copy / entry.name, follow_symlinks=False)
    mine, other = copy.stat(), source.stat()
    if mine.st_dev != other.st_dev:
        raise OSError(errno.EXDEV, "another file system", str(source))
    if (mine.st_uid, mine.st_gid) != (other.st_uid, other.st_gid):
        os.chown(copy, other.st_uid, other.st_gid)
    shutil.copystat(source, copy)


def _exchange(first: Path, second: Path) -> None:
    """Exchange two folders in one step."""
    if sys.platform != "linux" or not hasattr(libc := ctypes.CDLL(None, use_errno=True), "renameat2"):
        raise OSError(errno.ENOSYS, "renameat2 is not there")
    if libc.renameat2(_AT_FDCWD, os.fsencode(first), _AT_FDCWD, os.fsencode(second), _RENAME_EXCHANGE):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), str(second))


def _bring_over(old: Path, new: Path, without: set[str] = frozenset()) -> None:
    """Move files that came into the old folder between linking and exchanging."""
    with os.scandir(old) as entries:
        for entry in entries:
            twin = new / entry.name
            if entry.name in without:
                continue
            if entry.is_dir(follow_symlinks=False) and twin.is_dir():
                _bring_over(Path(entry.path), twin)
            elif not os.path.lexists(twin) or not os.path.samestat(entry.stat(follow_symlinks=False), twin.lstat()):
                os.replace(entry.path, twin)
