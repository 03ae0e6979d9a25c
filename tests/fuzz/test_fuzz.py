"""`uv run pytest -m fuzz`: damaged and hostile files through every reader, none of which may do anything but read or refuse.

How many cases and which: FUZZ_CASES (2000) and FUZZ_SEED (0) of the environment; run.py beside this file has more to set.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

CASES, SEED = (os.environ.get(f"FUZZ_{name}", usual) for name, usual in (("CASES", "2000"), ("SEED", "0")))


@pytest.mark.fuzz
def test_every_reader_reads_or_refuses(tmp_path: Path) -> None:
    command = [
        sys.executable,
        str(Path(__file__).with_name("run.py")),
        "--cases",
        CASES,
        "--seed",
        SEED,
        "--seeds",
        str(tmp_path),
    ]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stdout[-6000:] + found.stderr[-2000:]
