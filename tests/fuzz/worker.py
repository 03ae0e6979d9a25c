"""The child of run.py: stays alive between cases; a case is a line on stdin, its outcome a line on stdout.

Everything is imported once. A case copies its seeds (hard links), writes the damaged file, reads, and says what came of it.
"""

import gc
import json
import os
import random
import resource
import shutil
import sys
import tempfile
import time
import traceback
import warnings
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
LARGEST = 2**30  # bytes beyond what the process has before a case
SAFETY = 6 * 2**30  # bytes of address space beyond that: where a case is ended for the machine's sake


def resident() -> tuple[int, int]:
    """Bytes now and at most since the last reset."""
    fields = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines() if ":" in line)
    return tuple(int(fields[name].split()[0]) * 1024 for name in ("VmRSS", "VmHWM"))  # type: ignore[return-value]


def place_of(error: BaseException) -> str:
    """Where an exception left pulvinar: the innermost of its own lines, and what was raised."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "pulvinar" in frame.filename]
    where = f"{frames[-1].filename.rpartition('pulvinar/')[2]}:{frames[-1].lineno}" if frames else "outside"
    return f"{where} {type(error).__name__}: {str(error)[:160]}"


def outcome(name: str, seed: str, seeds: Path, work: Path) -> dict:
    from mutations import mutate
    from targets import TARGETS, RefusedError

    from pulvinar.core.errors import PulvinarError

    target, chance = TARGETS[name], random.Random(seed)
    folder = work / "case"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(seeds / target.seeds, folder, copy_function=os.link)
    files = sorted({path for pattern in target.files for path in folder.glob(pattern) if path.is_file()})
    file, other = chance.choice(files), chance.choice(files)
    changed = mutate(file, file.read_bytes(), other.read_bytes(), chance)
    file.unlink()
    file.write_bytes(changed)
    os.utime(file)
    Path("/proc/self/clear_refs").write_text("5")
    (before, _), began = resident(), time.process_time()
    found, said = "ok", ""
    try:
        target.read(folder, file)
    except (PulvinarError, RefusedError) as error:
        found, said = "refused", str(error)
    except MemoryError as error:
        found, said = "memory", place_of(error)
    except Exception as error:
        found, said = "raw", place_of(error)
    grown, seconds = resident()[1] - before, time.process_time() - began
    if found in ("ok", "refused") and grown > LARGEST:
        found, said = "memory", f"{grown / 2**30:.1f} GB; {said[:100]}"
    return {"outcome": found, "said": said, "file": file.relative_to(folder).as_posix(), "bytes": grown, "seconds": seconds}


def main() -> None:
    seeds = Path(sys.argv[1])
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    sys.stderr = Path(os.devnull).open("w")  # noqa: SIM115 (to the end of the process)
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory(prefix="pulvinar-fuzz-", dir=seeds) as place:
        for variable in ("PULVINAR_CACHE", "TORCH_HOME", "HF_HOME"):
            os.environ[variable] = str(Path(place) / variable.lower())
        import mutations
        import targets
        import torch

        import pulvinar.app.fit
        import pulvinar.report.page  # noqa: F401

        torch.set_num_threads(1)
        mutations.warm_up()
        for name in ("matlab/v5.mat", "arrays/d.h5"):  # starts the process that looks at files first
            targets.TARGETS["MATLAB" if name.endswith("mat") else "arrays"].read(seeds / name.split("/")[0], seeds / name)
        gc.collect()
        gc.freeze()
        size = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
        resource.setrlimit(resource.RLIMIT_AS, (size + SAFETY, size + SAFETY))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        answers.write('{"outcome": "ready"}\n')
        answers.flush()
        for number, line in enumerate(sys.stdin):
            if number % 100 == 0:  # what is loaded by now is not looked through again
                gc.collect()
                gc.freeze()
            case = json.loads(line)
            answers.write(json.dumps(outcome(case["target"], case["seed"], seeds, Path(place))) + "\n")
            answers.flush()


if __name__ == "__main__":
    main()
