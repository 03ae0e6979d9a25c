"""Parsers of our own under a fuzzer that follows their branches: `uv run --group fuzz python tests/fuzz/guided.py --seconds 60`.

atheris (libFuzzer) keeps inputs that reach a branch no other reached, and goes on from them. For each reader of `OURS` a process
of its own; what it may do is what run.py beside this file allows: read, or refuse with a message of ours. The first input that does
something else ends that reader's process and is kept. Prints a table; exit code 1 if there is such an input.
"""

import argparse
import importlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from random import Random

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))
OURS = {  # reader of targets.py -> the modules whose branches count
    "mappings (restricted pickle)": ("pulvinar.data.restricted_unpickling",),
    "pictures": ("pulvinar.data.pictures",),
    "arrays": ("pulvinar.data.array_files", "pulvinar.core.storage", "pulvinar.core.hdf5"),
    "feature tables": ("pulvinar.data.feature_tables", "pulvinar.data.array_files"),
    "tables": ("pulvinar.data.tables", "pulvinar.datasets.nsd.files"),
    "tables of responses": ("pulvinar.data.table_responses",),
    "JSON and TOML": ("pulvinar.core.config", "pulvinar.data.description", "pulvinar.networks.weights"),
    "grids of sweep": ("pulvinar.app.sweeps.grid", "pulvinar.core.config"),
    "NIfTI": ("pulvinar.data.brain_files",),
    "surfaces": ("pulvinar.data.brain_files", "pulvinar.data.gifti_sizes", "pulvinar.datasets.nsd.files"),
    "numbers per vertex": ("pulvinar.data.surface_files", "pulvinar.data.gifti_sizes", "pulvinar.data.brain_files"),
    "responses in CIFTI": ("pulvinar.data.cifti_files",),
    "RDMs": ("pulvinar.rsa.rdm_files", "pulvinar.data.dissimilarity_files"),
    "Algonauts submissions": ("pulvinar.datasets.algonauts2023.submission",),
    "weights and checkpoints": ("pulvinar.networks.weights", "pulvinar.learning.checkpoints"),
    "listings, records of fetched files": ("pulvinar.data.published_files", "pulvinar.app.fetch", "pulvinar.data.downloads"),
}
MOST = 2**16  # bytes of an input
IN_C = (".h5", ".hdf5", ".mat")  # whose libraries can crash on what is damaged already: the change is made to the whole file
LONGEST = 10  # s of a case


def seeds_of(name: str, seeds: Path) -> list[Path]:
    """The small files of a reader, by their place in its folder."""
    from targets import TARGETS

    folder = seeds / TARGETS[name].seeds
    found = sorted({path for pattern in TARGETS[name].files for path in folder.glob(pattern) if path.is_file()})
    return [path.relative_to(folder) for path in found if path.stat().st_size < MOST]


def write_corpus(name: str, seeds: Path, corpus: Path) -> None:
    """An input is a byte that says which file, and what is in it."""
    from targets import TARGETS

    for number, file in enumerate(seeds_of(name, seeds)):
        (corpus / f"{number}").write_bytes(bytes([number]) + (seeds / TARGETS[name].seeds / file).read_bytes())


def follow(name: str, seeds: Path, work: Path, options: list[str]) -> None:
    """Fuzz one reader in this process, to its end."""
    import atheris

    with atheris.instrument_imports(include=[*OURS[name]], enable_loader_override=False):
        for module in OURS[name]:
            importlib.import_module(module)
    from mutations import mutate, warm_up
    from targets import TARGETS, RefusedError
    from worker import LARGEST, SAFETY, resident

    from pulvinar.core.errors import PulvinarError

    target, files, folder = TARGETS[name], seeds_of(name, seeds), work / "case"
    shutil.copytree(seeds / target.seeds, folder)
    whole = [(folder / file).read_bytes() for file in files]
    warm_up()

    def case(content: bytes) -> None:
        if not content:
            return
        number = content[0] % len(files)
        place = folder / files[number]
        place.write_bytes(content[1:])
        os.utime(place)
        Path("/proc/self/clear_refs").write_text("5")
        before = resident()[0]
        try:
            target.read(folder, place)
        except (PulvinarError, RefusedError):
            pass
        finally:
            for file, seed in zip(files, whole, strict=True):
                if file == files[number] or not (folder / file).is_file():  # some readers take a neighbour away
                    (folder / file).write_bytes(seed)
        if (grown := resident()[1] - before) > LARGEST:
            raise MemoryError(f"{grown / 2**30:.1f} GB for {len(content)} bytes of {files[number]}")

    def changed(content: bytes, most: int, seed: int) -> bytes:
        chance = Random(seed)
        if chance.random() < 0.5 or len(content) < 2:
            return atheris.Mutate(content, most)
        number = content[0] % len(files)
        taken_apart = whole[number] if files[number].suffix in IN_C else content[1:]
        return (bytes([number]) + mutate(files[number], taken_apart, chance.choice(whole), chance))[:most]

    sys.stderr.write("warming up\n")
    for number, content in enumerate(whole):
        case(bytes([number]) + content)
    most = (resident()[0] + SAFETY) // 2**20  # a case has its own limit; this is for the machine's sake
    limits = [f"-rss_limit_mb={most}", f"-timeout={LONGEST}", f"-max_len={MOST}", "-detect_leaks=0"]
    atheris.Setup([sys.argv[0], *options, *limits], case, custom_mutator=changed)
    atheris.Fuzz()


def run(name: str, seeds: Path, seconds: int, seed: int, keep: Path) -> tuple[int, int, str]:
    """Cases, branches reached, and where it ended otherwise ('' where it did not)."""
    with tempfile.TemporaryDirectory(prefix="pulvinar-guided-") as place:
        corpus = Path(place) / "corpus"
        corpus.mkdir()
        write_corpus(name, seeds, corpus)
        found = keep / re.sub(r"\W+", "_", name)
        command = [sys.executable, str(Path(__file__)), "--reader", name, "--seeds", str(seeds), "--work", place, "--"]
        options = [f"-max_total_time={seconds}", f"-seed={seed}", f"-artifact_prefix={found}-", str(corpus)]
        environment = {**os.environ, "PULVINAR_CACHE": f"{place}/cache", "TORCH_HOME": place, "HF_HOME": place}
        ended = subprocess.run(
            [*command, *options], capture_output=True, text=True, errors="replace", env=environment, check=False
        )
    said = ended.stderr
    counted = re.findall(r"^#(\d+)\s.*?cov: (\d+)", said, re.MULTILINE)
    cases, reached = map(int, counted[-1]) if counted else (0, 0)
    if ended.returncode == 0:
        return cases, reached, ""
    text = re.findall(r"=== Uncaught Python exception: ===\n(.*)\n", said) or re.findall(r"ERROR: (.*)", said) or [said[-500:]]
    lines = re.findall(r'File "\S*?(pulvinar/\S+)", line (\d+)', said)
    where = ":".join(lines[-1]) if lines else "outside"
    kept = re.findall(r"Test unit written to (\S+)", said)
    return cases, reached, f"{where} {text[0][:200]}; {kept[-1] if kept else 'no input kept'}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=int, default=60, help="of each reader")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", default="", help="part of a reader's name")
    parser.add_argument("--seeds", type=Path, help="folder of the small files (default: made anew)")
    parser.add_argument("--keep", type=Path, default=Path("build/fuzz"), help="folder for inputs that ended otherwise")
    parser.add_argument("--reader", choices=OURS, help="one reader in this process (--work); libFuzzer's options follow --")
    parser.add_argument("--work", type=Path)
    parser.add_argument("rest", nargs="*")
    given = parser.parse_args()
    if given.reader:
        follow(given.reader, given.seeds, given.work, given.rest)
        return 0
    try:
        import atheris  # noqa: F401
    except ImportError:
        raise SystemExit("atheris is not installed: uv run --group fuzz python tests/fuzz/guided.py") from None
    given.keep.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="pulvinar-seeds-") as place:
        seeds = (given.seeds or Path(place)).resolve()
        if not any(seeds.iterdir() if seeds.is_dir() else ()):
            subprocess.run([sys.executable, str(HERE / "seeds.py"), str(seeds)], check=True)
        bad, total, began = 0, 0, time.monotonic()
        print(f"{'reader':<38}{'cases':>10}{'branches':>10}  ended otherwise")
        for name in (name for name in OURS if given.only in name):
            cases, reached, where = run(name, seeds, given.seconds, given.seed, given.keep.resolve())
            bad, total = bad + bool(where), total + cases
            print(f"{name:<38}{cases:>10}{reached:>10}  {where or 'none'}", flush=True)
        print(f"{'all':<38}{total:>10}{'':>10}  {bad} in {time.monotonic() - began:.0f} s")
    return int(bad > 0)


if __name__ == "__main__":
    sys.exit(main())
