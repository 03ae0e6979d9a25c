"""Locks between real processes, one of which is killed."""

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

import pulvinar
from pulvinar.core.errors import FileError
from pulvinar.core.locks import HOLDER, LOCK, LockedError, holder, holding

HOLD = """
import sys, time
from pulvinar.core.locks import holding
with holding(sys.argv[1]):
    print("held", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def other(tmp_path):
    """A process that holds the lock of tmp_path."""
    environment = {**os.environ, "PYTHONPATH": str(Path(pulvinar.__file__).parents[1])}
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.communicate()


def test_a_second_process_is_refused_until_the_first_is_killed(other, tmp_path):
    said = rf"in use by process {other.pid} on {socket.gethostname()}, since 20.* UTC; wait"
    with pytest.raises(LockedError, match=said), holding(tmp_path):
        pass
    assert holder(tmp_path).process == other.pid
    other.send_signal(signal.SIGKILL)
    other.wait()
    assert holder(tmp_path) is None  # though its file is there
    assert (tmp_path / HOLDER).exists()
    with holding(tmp_path):
        assert holder(tmp_path).process == os.getpid()
    assert [path.name for path in tmp_path.iterdir()] == [LOCK]


def test_one_process_holds_a_lock_once_and_may_take_it_again(tmp_path):
    with holding(tmp_path), pytest.raises(LockedError, match=f"process {os.getpid()}"), holding(tmp_path):
        pass
    with holding(tmp_path):
        pass


def test_a_holder_on_another_machine_counts_and_the_way_out_is_said(tmp_path):
    with holding(tmp_path):
        elsewhere = {"host": "node-7", "process": 1, "since": "2026-11-30T02:00:00+00:00"}
        (tmp_path / HOLDER).write_text(json.dumps(elsewhere))
        said = r"process 1 on node-7, since 2026-11-30 02:00:00 UTC.*remove .*\.lock"
        with pytest.raises(LockedError, match=said), holding(tmp_path):
            pass


def test_a_lock_needs_a_folder(tmp_path):
    with pytest.raises(FileError, match="no such folder"), holding(tmp_path / "none"):
        pass
