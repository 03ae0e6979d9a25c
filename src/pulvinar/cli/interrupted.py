"""What an interrupted command left, as it is found on the disk, and how to go on. No torch."""

import argparse
import time
from pathlib import Path

FIT = "Continue with the same command and --resume."
SAME = "Continue with the same command."


def kept(arguments: argparse.Namespace) -> str:
    """One or two sentences; none for commands that keep nothing of a part of their work."""
    command = arguments.command
    if command == "fit" and arguments.out:
        return _of_run(Path(arguments.out))
    if command == "reconstruct":
        folder = Path(arguments.out or Path(arguments.run) / "reconstructions")
        checkpoint = _newest_checkpoint(folder / "picture_decoder")
        pictures = len(list(folder.glob("generated/*"))) + len(list(folder.glob("images/*")))
        return f"{f'Kept: {checkpoint}. ' if checkpoint else ''}{pictures} pictures are in {folder}. {SAME}"
    if command == "data" and arguments.data_command == "fetch":
        return f"Kept: what has come, in {arguments.out}. {SAME}"
    if command == "reproduce":
        return f"Finished runs and the last checkpoint are kept. {SAME}"
    unfinished = Path(f"{getattr(arguments, 'out', None) or ''}.unfinished")
    return f"Kept: {unfinished}. {SAME}" if unfinished.exists() else ""


def _of_run(run: Path) -> str:
    if not (run / "run.json").is_file():
        return "Nothing was written."
    checkpoint = _newest_checkpoint(run)
    return f"Kept: {checkpoint}. {FIT}" if checkpoint else f"{run} has no checkpoint yet, and will begin anew. {FIT}"


def _newest_checkpoint(run: Path) -> str:
    """The last checkpoint of a run or of the pretrained runs inside it, with its age."""
    found = [
        path for place in ("", "pretrained", "pretrained/pretrained") for path in (run / place).glob("checkpoints/latest.*")
    ]
    if not found:
        return ""
    newest = max(found, key=lambda path: path.stat().st_mtime)
    return f"the checkpoint of {max(0.0, time.time() - newest.stat().st_mtime):.0f} s ago ({newest})"
