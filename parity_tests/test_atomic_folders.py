"""What is saved is there whole or not at all: writers are killed at every step, at random moments, and run at once."""

import errno
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from parity_tests.kill_helpers import (
    contents,
    ended,
    forked,
    killed_at_every_step,
    litter,
    write_files,
)
from parity_tests.tiers import exhaustive
from tf_pipeline import files
from tf_pipeline.checkpoint import checkpoint_folder
from tf_pipeline.files import atomic_file, atomic_folder, write_text

SINGLE = {"config.json": "single", "model.safetensors": "weights"}
OTHER = {"config.json": "other", "model.safetensors": "other weights"}
SHARDED = {
    "config.json": "single",
    "model-00001-of-00002.safetensors": "one",
    "model-00002-of-00002.safetensors": "two",
    "model.safetensors.index.json": "index",
}
PORTED = SINGLE | {"graph.json": "graph", "graph.safetensors": "constants", "tokenizer/vocab.txt": "words"}
MINE = {"README.md": "mine", "pytorch_model.bin": "pickle", "pooling/config.json": "mine", "a/b/notes.txt": "mine"}
CHANGES = {
    "another config": (SINGLE, OTHER),
    "single to sharded": (SINGLE, SHARDED),
    "sharded to single": (SHARDED, OTHER),
    "ported to native": (PORTED, SINGLE | {"tokenizer/vocab.txt": "words"}),
    "native to ported": (SHARDED | {"tokenizer/vocab.txt": "other words"}, PORTED),
    "weights alone": (SINGLE, SINGLE | {"model.safetensors": "trained"}),
}


def save(folder: Path, texts: dict[str, str]) -> None:
    with checkpoint_folder(folder) as staging:
        write_files(staging, texts)


def no_exchange(*_):
    raise OSError(errno.EINVAL, "Invalid argument")


def expected(tmp_path: Path, texts: dict[str, str]) -> dict[str, str]:
    """The digests of some texts."""
    folder = tmp_path / "expected"
    shutil.rmtree(folder, ignore_errors=True)
    write_files(folder, texts)
    return contents(folder)


def prepared(folder: Path, texts: dict[str, str]) -> None:
    for path in folder.parent.glob(".saving-*"):
        shutil.rmtree(path)
    shutil.rmtree(folder, ignore_errors=True)
    write_files(folder, texts)


# ------------------------------------------------------------------------------------------- killed at every step


@pytest.mark.parametrize("change", exhaustive(CHANGES, ["another config"]))
def test_a_save_that_is_killed_leaves_the_old_or_the_new_checkpoint(tmp_path, change, capsys):
    folder, (old, new) = tmp_path / "model", CHANGES[change]
    legal = [expected(tmp_path, old | MINE), expected(tmp_path, new | MINE)]
    seen = []
    for _ in killed_at_every_step(lambda: prepared(folder, old | MINE), lambda: save(folder, new)):
        visible = {name: digest for name, digest in contents(folder).items() if not name.startswith(".saving-")}
        assert visible in legal
        seen.append(legal.index(visible))
        save(folder, old)
        assert contents(folder) == legal[0] and not litter(folder)
    assert set(seen) == {0, 1} and seen == sorted(seen)
    with capsys.disabled():
        print(f"\n{change}: killed before each of {len(seen)} steps, {seen.count(1)} times after the exchange")


@pytest.mark.parametrize(
    "change",
    exhaustive(["another config", "single to sharded", "ported to native", "weights alone"], ["single to sharded"]),
)
def test_without_an_exchange_there_is_no_config_between_two_checkpoints(tmp_path, change, monkeypatch, capsys):
    """Neither loader takes such a folder for a checkpoint."""
    monkeypatch.setattr(files, "_exchange", no_exchange)
    folder, (old, new) = tmp_path / "model", CHANGES[change]
    legal = [expected(tmp_path, old | MINE), expected(tmp_path, new | MINE)]
    mine, between, steps = expected(tmp_path, MINE), 0, 0
    for _ in killed_at_every_step(lambda: prepared(folder, old | MINE), lambda: save(folder, new)):
        visible = {name: digest for name, digest in contents(folder).items() if not name.startswith(".saving-")}
        assert mine.items() <= visible.items()
        assert visible in legal or "config.json" not in visible
        between, steps = between + (visible not in legal), steps + 1
        save(folder, old)
        assert contents(folder) == legal[0] and not litter(folder)
    assert (between == 0) == (change == "weights alone")
    with capsys.disabled():
        print(f"\n{change}, file by file: killed before each of {steps} steps, {between} times without a config")


def test_a_new_folder_appears_whole(tmp_path):
    folder, seen = tmp_path / "new", set()

    def clean():
        shutil.rmtree(folder, ignore_errors=True)

    for _ in killed_at_every_step(clean, lambda: save(folder, PORTED)):
        seen.add(folder.exists())
        assert not folder.exists() or contents(folder) == expected(tmp_path, PORTED)
        save(folder, PORTED)
        assert not litter(folder)
    assert seen == {False, True}


@pytest.mark.parametrize("fresh", exhaustive([True, False], [False]))
def test_a_version_appears_whole_and_after_the_files_beside_it(tmp_path, fresh):
    folder = tmp_path / "served"
    old = {} if fresh else {"1/saved_model.pb": "one", "README.md": "one", "serve.sh": "one"}
    new = {"2/saved_model.pb": "two", "2/variables/index": "two", "README.md": "two", "serve.sh": "two"}

    def export():
        with atomic_folder(folder) as staging:
            write_files(staging, new)

    def prepare():
        prepared(folder, old)
        if fresh and folder.exists():
            folder.rmdir()

    seen = set()
    for _ in killed_at_every_step(prepare, export):
        visible = {path: path.read_text() for path in folder.rglob("*") if path.is_file()}
        visible = {str(path.relative_to(folder)): text for path, text in visible.items()}
        if "2/saved_model.pb" in visible:
            assert visible == old | new
        assert visible.items() <= old.items() | new.items() and set(visible) >= set(old)
        seen.add("2/saved_model.pb" in visible)
        with atomic_folder(folder) as staging:
            write_files(staging, {"README.md": "three"})
        assert not litter(folder)
    assert seen == {False, True}


def test_a_version_that_another_process_exported_meanwhile_is_refused(tmp_path):
    folder = tmp_path / "served"
    with pytest.raises(FileExistsError, match=r"served/1 has been made in the meantime; nothing was changed"):
        with atomic_folder(folder) as staging:
            write_files(staging, {"1/saved_model.pb": "late", "README.md": "late"})
            write_files(folder, {"1/saved_model.pb": "first", "README.md": "first"})
    assert contents(folder) == expected(tmp_path, {"1/saved_model.pb": "first", "README.md": "first"})
    assert not litter(folder)


# ------------------------------------------------------------------------------------------- several writers at once


@pytest.mark.parametrize("rounds", exhaustive([3, 10], [3]))
def test_two_processes_that_save_to_one_folder(tmp_path, rounds):
    folder = tmp_path / "model"
    words = {"tokenizer/vocab.txt": "words"}
    legal = [expected(tmp_path, MINE | words | texts) for texts in (SINGLE, SHARDED, PORTED)]
    write_files(folder, MINE)
    for _ in range(rounds):
        children = [
            forked(lambda texts=texts: [save(folder, words | texts) for _ in range(10)])
            for texts in (SINGLE, SHARDED, PORTED)
        ]
        assert all(map(ended, children))
        assert contents(folder) in legal
        assert not litter(folder)


def test_litter_of_the_dead_is_removed_and_that_of_the_living_is_not(tmp_path, monkeypatch):
    folder = tmp_path / "model"
    save(folder, SINGLE)

    def die_while_writing():
        with checkpoint_folder(folder) as staging:
            write_files(staging, {"model.safetensors": "half"})
            os.kill(os.getpid(), 9)

    assert not ended(forked(die_while_writing))
    (beside,) = litter(folder)
    monkeypatch.chdir(folder)
    assert not ended(forked(die_while_writing))
    monkeypatch.undo()
    (inside,) = litter(folder)
    assert (tmp_path / inside).exists() < (folder / inside).exists() and beside != inside
    write_files(folder, {".saving-mine/notes.txt": "mine"})
    with checkpoint_folder(folder) as staging:
        assert litter(folder) == [staging.name, ".saving-mine"]
        write_files(staging, OTHER)
        save(folder, SHARDED)
        assert sorted(litter(folder)) == sorted([staging.name, ".saving-mine"])
    assert contents(folder) == expected(tmp_path, OTHER | {".saving-mine/notes.txt": "mine"})


def test_a_writer_in_the_folder_itself_is_not_lost(tmp_path, monkeypatch):
    """It cannot exchange the folder that it is in, so it prepares its files there, and another one comes first."""
    folder = tmp_path / "model"
    save(folder, SINGLE)
    monkeypatch.chdir(folder)
    with checkpoint_folder(".") as staging:
        write_files(staging, OTHER)
        monkeypatch.undo()
        assert staging.parent == folder
        save(folder, SHARDED)
        assert (folder / "model.safetensors.index.json").exists()
    assert contents(folder) == expected(tmp_path, OTHER)


def test_a_writer_may_use_the_same_means_for_what_it_prepares(tmp_path):
    """As an export does, whose configuration is written file by file into what is prepared."""

    def write():
        signal.alarm(20)  # rather than wait for its own lock for ever
        with checkpoint_folder(tmp_path / "model") as staging:
            write_text(staging / "notes.txt", "mine")
            save(staging / "inner", SINGLE)
            save(staging / "inner", SHARDED)
            save(staging, SHARDED)
            save(staging, OTHER)
            save(tmp_path / "another", SINGLE)  # whose writer leaves alone what is prepared here
            assert (staging / "notes.txt").exists()

    assert ended(forked(write))
    inner = {f"inner/{name}": text for name, text in SHARDED.items()}
    assert contents(tmp_path / "model") == expected(tmp_path, OTHER | inner | {"notes.txt": "mine"})
    assert not litter(tmp_path / "model")


def test_what_others_write_while_a_folder_is_exchanged_stays(tmp_path, monkeypatch):
    folder = tmp_path / "model"
    save(folder, SINGLE | MINE)
    exchange = files._exchange

    def late(*paths):
        write_files(folder, {"new.txt": "new", "a/new.txt": "new"})
        (folder / "README.md").unlink()
        write_files(folder, {"README.md": "changed"})
        exchange(*paths)

    monkeypatch.setattr(files, "_exchange", late)
    save(folder, SHARDED)
    changed = {"new.txt": "new", "a/new.txt": "new", "README.md": "changed"}
    assert contents(folder) == expected(tmp_path, SHARDED | MINE | changed)


def test_the_lock_is_not_left_to_a_forked_process(tmp_path):
    with checkpoint_folder(tmp_path / "model") as staging:
        write_files(staging, SINGLE)
        child = forked(lambda: time.sleep(60))
    try:
        os.mkdir(staging)  # as if the process had died
        save(tmp_path / "model", OTHER)
        assert not litter(tmp_path / "model")
    finally:
        os.kill(child, 9)
        ended(child)


# --------------------------------------------------------------------------------------------- folders of all kinds


def test_a_folder_that_is_a_link(tmp_path):
    (tmp_path / "link").symlink_to("real/model")
    save(tmp_path / "link", SINGLE | MINE)  # which is not there yet
    save(tmp_path / "link", OTHER)
    assert (tmp_path / "link").is_symlink() and not (tmp_path / "real/model").is_symlink()
    assert contents(tmp_path / "real/model") == expected(tmp_path, OTHER | MINE)
    assert not litter(tmp_path / "link") and not litter(tmp_path / "real/model")


def test_links_in_a_folder(tmp_path):
    """As in the cache of the hub, whose files must not change."""
    write_files(tmp_path, {"blobs/config": "single", "blobs/weights": "weights", "blobs/words": "words"})
    folder = tmp_path / "model"
    folder.mkdir()
    for name, blob in {"config.json": "config", "model.safetensors": "weights", "vocab.txt": "words"}.items():
        (folder / name).symlink_to(f"../blobs/{blob}")
    (folder / "gone").symlink_to("nowhere")
    save(folder, OTHER)
    assert [(folder / name).is_symlink() for name in (*OTHER, "vocab.txt", "gone")] == [False, False, True, True]
    assert (folder / "vocab.txt").read_text() == "words" and os.readlink(folder / "gone") == "nowhere"
    assert (tmp_path / "blobs/weights").read_text() == "weights"


@pytest.mark.parametrize("inner", [".", "a/b"])
def test_the_current_directory_stays_the_current_directory(tmp_path, inner, monkeypatch):
    folder = tmp_path / "model"
    save(folder, SINGLE | MINE)
    monkeypatch.chdir(folder / inner)
    save(Path(os.path.relpath(folder)), SHARDED)
    assert contents(folder) == expected(tmp_path, SHARDED | MINE) and not litter(folder)
    assert Path.cwd() == folder / inner and os.listdir()


def test_a_folder_whose_parent_is_read_only(tmp_path, monkeypatch):
    folder, rename = tmp_path / "model", os.rename
    save(folder, SINGLE | MINE)

    def refused(source, target, **kwargs):
        if Path(target).parent == tmp_path:
            raise PermissionError(errno.EACCES, "Permission denied")
        rename(source, target, **kwargs)

    monkeypatch.setattr("os.rename", refused)
    save(folder, SHARDED)
    assert contents(folder) == expected(tmp_path, SHARDED | MINE) and not litter(folder)


def test_a_folder_that_is_a_mount_point(tmp_path):
    """In a name space of its own, where mounting takes no privilege."""
    folder = tmp_path / "model"
    (folder / "inner").mkdir(parents=True)
    program = f"""
import os, sys
sys.path.insert(0, {str(Path(files.__file__).parent.parent)!r})
from pathlib import Path
from tf_pipeline.files import atomic_folder
for folder in (Path({str(folder)!r}), Path({str(folder.parent)!r})):  # a mount point, and a folder with one in it
    for text in ("one", "two"):
        with atomic_folder(folder, "config.json", lambda name: name == "stale") as staging:
            (staging / "config.json").write_text(text)
            (staging / f"weights-{{text}}").write_text(text)
        (folder / "stale").touch()
    print(sorted(os.listdir(folder)), (folder / "config.json").read_text(), os.path.ismount({str(folder)!r}))
"""
    mount = f'mount -t tmpfs none {folder} && exec "$0" -c "$1"'
    command = ["unshare", "-r", "-m", "sh", "-c", mount, sys.executable, program]
    done = subprocess.run(command, capture_output=True, text=True)
    if "unshare:" in done.stderr or "mount:" in done.stderr:
        pytest.skip(f"No file system can be mounted here: {done.stderr.strip()}")
    assert done.stdout.splitlines() == [
        "['config.json', 'stale', 'weights-one', 'weights-two'] two True",
        "['config.json', 'model', 'stale', 'weights-one', 'weights-two'] two True",
    ], done.stderr


def test_permissions_and_owner(tmp_path):
    folder = tmp_path / "model"
    save(folder, SINGLE | MINE)
    for mode, readable in ((0o2775, 0o644), (0o700, 0o600), (0o750, 0o640)):
        folder.chmod(mode)
        (folder / "README.md").chmod(0o604)
        (folder / "a").chmod(0o711)
        inode = (folder / "README.md").stat().st_ino
        with checkpoint_folder(folder) as staging:
            assert not staging.stat().st_mode & 0o077  # no more readable than the folder is going to be
            write_files(staging, SHARDED | {"run.sh": f"program {mode}"})
            (staging / "run.sh").chmod(0o700)
        assert folder.stat().st_mode & 0o7777 == mode and (folder / "a").stat().st_mode & 0o777 == 0o711
        assert {(folder / name).stat().st_mode & 0o777 for name in SHARDED} == {readable}
        assert (folder / "run.sh").stat().st_mode & 0o777 == readable | 0o100 | (readable & 0o044) >> 2
        assert (folder / "README.md").stat().st_mode & 0o777 == 0o604
        assert ((folder / "README.md").stat().st_ino, (folder / "README.md").stat().st_nlink) == (inode, 1)
        save(folder, OTHER)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can write to the folder of another user, and keep it theirs")
def test_a_folder_of_another_user_stays_theirs(tmp_path):
    folder = tmp_path / "model"
    save(folder, SINGLE | MINE)
    for path in (folder, folder / "a", folder / "README.md"):
        os.chown(path, 1234, 1235)
    save(folder, SHARDED)
    for path in (folder, folder / "a", folder / "README.md"):
        assert (path.stat().st_uid, path.stat().st_gid) == (1234, 1235)


def test_one_change_leaves_the_folder_itself_in_place(tmp_path):
    """As when a model is saved again after every epoch: whoever is in the folder stays there."""
    folder = tmp_path / "model"
    save(folder, SINGLE | MINE)
    inode = folder.stat().st_ino
    save(folder, SINGLE | {"model.safetensors": "trained"})
    assert folder.stat().st_ino == inode
    assert contents(folder) == expected(tmp_path, SINGLE | MINE | {"model.safetensors": "trained"})
    save(folder, OTHER)
    assert folder.stat().st_ino != inode


@pytest.mark.parametrize("fails", [True, False])
def test_a_failed_save_leaves_nothing(tmp_path, fails):
    folder = tmp_path / "model"
    if fails:
        save(folder, SINGLE)
    before = contents(tmp_path)
    with pytest.raises(KeyboardInterrupt), checkpoint_folder(folder) as staging:
        write_files(staging, OTHER)
        raise KeyboardInterrupt
    assert contents(tmp_path) == before and not litter(folder)


# --------------------------------------------------------------------------------------------------------- one file


def test_a_file_is_there_whole_or_not_at_all(tmp_path):
    file, seen = tmp_path / "report.json", set()

    def write():
        write_text(file, "new")

    for _ in killed_at_every_step(lambda: file.write_text("old"), write):
        seen.add(file.read_text())
        write()
        assert os.listdir(tmp_path) == ["report.json"]
    assert seen == {"old", "new"}


def test_files_of_all_kinds(tmp_path):
    write_text("/dev/null", "text")
    assert Path("/dev/null").is_char_device()
    file = tmp_path / "real.txt"
    file.write_text("old")
    file.chmod(0o640)
    (tmp_path / "link.txt").symlink_to("real.txt")
    write_text(tmp_path / "link.txt", "new")
    assert (tmp_path / "link.txt").is_symlink() and file.read_text() == "new"
    assert file.stat().st_mode & 0o777 == 0o640
    with pytest.raises(RuntimeError), atomic_file(file) as staged:
        staged.write_text("half")
        raise RuntimeError
    assert file.read_text() == "new" and sorted(os.listdir(tmp_path)) == ["link.txt", "real.txt"]
    with pytest.raises(FileNotFoundError):
        write_text(tmp_path / "nowhere/file.txt", "text")
