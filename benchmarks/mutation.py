"""Which broken versions of the code do the tests notice? A table of killed and surviving mutants per module.

    uv run --group mutation python benchmarks/mutation.py rsa scores          # families, or files of src/pulvinar
    uv run --group mutation python benchmarks/mutation.py rsa --show           # what survived, as differences

mutmut makes the mutants: one operator, number, argument, keyword or text changed at a time, in every function without a
decorator. What only a reader sees is left out: docstrings, type hints, and the lines of `raise`, `warn` and `log` statements
(that an error is raised is the line above, which is mutated). A mutant is tried by its own module's tests that reach its
function, the quickest first, until one fails. It is killed by a failing test, or by taking 20 times their processor time.

mutmut's own runner starts pytest anew for every mutant, which costs 2 s here (torch, beartype); this one collects the tests
once and forks. Results stand in build/mutation/; a second run goes on where the first one ended, and tries survivors again
with --again.
"""

import argparse
import ast
import gc
import json
import os
import random
import shutil
import signal
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PLACE = ROOT / "build" / "mutation"
FAMILIES = {
    "scores": ["scores"],
    "selection": ["selection", "rsa/stage_mask.py"],
    "objectives": ["learning/contrastive.py", "gating/objectives.py", "gating/distillation_objective.py"],
    "rsa": ["rsa/inference.py", "rsa/rdm_files.py", "rsa/rsatoolbox_files.py"],
    "ridge": ["linear/ridge.py", "linear/banded_ridge.py"],
}
SPEAKING = {"warn", "log"}
KILLED, SURVIVED, TIMED_OUT, NO_TEST = "killed", "survived", "timeout", "no test"


def silent_lines(code: str) -> set[int]:
    """Lines that a mutant may change: all but those of statements that only speak."""
    spoken: set[int] = set()
    for node in ast.walk(ast.parse(code)):
        called = node.value.func if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call) else None
        if isinstance(node, ast.Raise) or (isinstance(called, ast.Name) and called.id in SPEAKING):
            spoken |= set(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    return set(range(1, code.count("\n") + 2)) - spoken


def write_mutants(files: list[Path]) -> dict[str, list[str]]:
    """A copy of the package with all mutants of these files in it, sleeping; module -> names of its mutants."""
    from mutmut.mutation.file_mutation import mutate_file_contents

    copy = PLACE / "src"
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(ROOT / "src", copy, ignore=shutil.ignore_patterns("__pycache__"))
    found = {}
    for path in files:
        code = path.read_text(encoding="utf-8")
        mutated = mutate_file_contents(str(path), code, silent_lines(code))
        inside = path.relative_to(ROOT / "src")
        (copy / inside).write_text(mutated.code, encoding="utf-8")
        found[".".join(inside.with_suffix("").parts)] = list(mutated.mutant_names)
    return found


class Runner:
    """A pytest plugin: instead of running the tests once, it runs those of every mutant in a forked process each."""

    def __init__(self, mutants: dict[str, list[str]], results: dict[str, str], save, at_most: int | None) -> None:
        self.mutants, self.results, self.save, self.at_most = mutants, results, save, at_most

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        reached, seconds = self.trace(session)
        todo = [
            (module, name)
            for module, names in self.mutants.items()
            for name in names
            if self.results.get(f"{module}.{name}") is None
        ]
        if self.at_most is not None:
            n_tried = sum(fate != NO_TEST for fate in self.results.values())
            todo = random.Random(0).sample(todo, max(0, min(len(todo), self.at_most - n_tried)))
        gc.collect()
        gc.freeze()  # a forked process need not look through what is there already
        print(f"\n{len(session.items)} tests, {sum(seconds.values()):.0f} s; {len(todo)} mutants to try", flush=True)
        for number, (module, name) in enumerate(todo, start=1):
            function = f"{module}.{name.rpartition('__mutmut_')[0]}"
            tests = sorted(reached.get(function, ()), key=lambda item: seconds[item.nodeid])
            limit = 2 + 20 * sum(seconds[item.nodeid] for item in tests)
            self.results[f"{module}.{name}"] = _try(tests, f"{module}.{name}", limit) if tests else NO_TEST
            if number % 25 == 0 or number == len(todo):
                self.save()
                print(f"{number} of {len(todo)}", flush=True)
        return True

    def trace(self, session: pytest.Session) -> tuple[dict[str, set[pytest.Item]], dict[str, float]]:
        """Function -> the tests that reach it, and the processor seconds of every test; all of them must pass."""
        from mutmut.state import state

        reached: dict[str, set[pytest.Item]] = {}
        seconds = {}
        os.environ["MUTANT_UNDER_TEST"] = "stats"
        for item, following in zip(session.items, [*session.items[1:], None], strict=True):
            began = time.process_time()
            if not _passes(item, following):
                raise SystemExit(f"{item.nodeid} fails without a mutant")
            seconds[item.nodeid] = time.process_time() - began
            for function in state()._stats:
                reached.setdefault(function, set()).add(item)
            state()._stats.clear()
        return reached, seconds


def _passes(item: pytest.Item, following: pytest.Item | None) -> bool:
    from _pytest.runner import runtestprotocol

    return not any(report.failed for report in runtestprotocol(item, log=False, nextitem=following))


def _try(tests: list[pytest.Item], mutant: str, limit: float) -> str:
    """What becomes of a mutant: a process of its own runs the tests until one fails, within `limit` processor seconds."""
    child = os.fork()
    if child == 0:
        os.environ["MUTANT_UNDER_TEST"] = mutant
        signal.setitimer(signal.ITIMER_PROF, limit)
        try:
            fine = all(_passes(item, following) for item, following in zip(tests, [*tests[1:], None], strict=True))
        except BaseException:
            fine = False
        os._exit(0 if fine else 1)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        return TIMED_OUT
    return SURVIVED if os.WEXITSTATUS(status) == 0 else KILLED


def table(results: dict[str, str]) -> str:
    """Killed and survived per module."""
    rows, modules = [], sorted({name.rpartition(".")[0] for name in results})
    for module in modules:
        own = [fate for name, fate in results.items() if name.rpartition(".")[0] == module]
        rows.append((module, len(own), *(own.count(fate) for fate in (KILLED, TIMED_OUT, SURVIVED, NO_TEST))))
    rows.append(("all", *(sum(row[place] for row in rows) for place in range(1, 6))))
    lines = [f"{'module':40}{'mutants':>9}{'killed':>8}{'timeout':>9}{'survived':>10}{'no test':>9}{'killed %':>10}"]
    for name, n, *fates in rows:
        share = 100 * (fates[0] + fates[1]) / max(1, n)
        lines.append(f"{name:40}{n:>9}{fates[0]:>8}{fates[1]:>9}{fates[2]:>10}{fates[3]:>9}{share:>10.1f}")
    return "\n".join(lines)


def show(results: dict[str, str]) -> None:
    """The mutants that no test noticed, each as the lines that differ."""
    import difflib
    import re

    for name in sorted(name for name, fate in results.items() if fate in (SURVIVED, NO_TEST)):
        module, _, mutant = name.rpartition(".")
        code = (PLACE / "src" / Path(*module.split("."))).with_suffix(".py").read_text(encoding="utf-8")
        versions = {}
        for node in ast.walk(ast.parse(code)):
            if isinstance(node, ast.FunctionDef) and node.name in (mutant, f"{mutant.rpartition('__mutmut_')[0]}__mutmut_orig"):
                text = ast.get_source_segment(code, node) or ""
                versions[node.name == mutant] = re.sub(r"__mutmut_\w+", "", text).splitlines()
        lines = difflib.unified_diff(versions[False], versions[True], n=0, lineterm="")
        print(f"{name}: {results[name]}")
        print("\n".join(f"    {line}" for line in lines if not line.startswith(("---", "+++", "@@"))))


def files_of(what: str) -> list[str]:
    """The files of src/pulvinar that a word of the command line means."""
    package = ROOT / "src" / "pulvinar"
    places = [package / place for place in FAMILIES.get(what, [what])]
    files = [path for place in places for path in (sorted(place.glob("[!_]*.py")) if place.is_dir() else [place])]
    return [path.relative_to(package).as_posix() for path in files]


def tests_of(file: str) -> str:
    """The tests of a file."""
    folder, _, name = file.rpartition("/")
    return f"tests/{folder}/test_{name}"


def run(file: str, *, again: bool, at_most: int | None) -> dict[str, str]:
    """Mutant -> its fate, of one file; what an earlier run found stands, but for survivors where `again`."""
    stored = PLACE / f"{file.replace('/', '.')}.json"
    kept = json.loads(stored.read_text()) if stored.is_file() else {}
    mutants = write_mutants([ROOT / "src" / "pulvinar" / file])
    known = {f"{module}.{name}" for module, names in mutants.items() for name in names}
    results = {name: fate for name, fate in kept.items() if name in known and not (again and fate in (SURVIVED, NO_TEST))}
    child = os.fork()  # a process that has imported nothing of the package yet
    if child == 0:
        sys.path.insert(0, str(PLACE / "src"))
        runner = Runner(mutants, results, lambda: stored.write_text(json.dumps(results, indent=0)), at_most)
        options = ["-q", "--tb=no", "-p", "no:cacheprovider", "-o", "addopts=--import-mode=importlib", "-m", "not slow"]
        os._exit(int(pytest.main([*options, tests_of(file)], plugins=[runner])))
    os.waitpid(child, 0)
    return json.loads(stored.read_text()) if stored.is_file() else {}


def main() -> None:
    os.environ |= {"OMP_NUM_THREADS": "1", "MPLBACKEND": "Agg"}  # a forked process has no other threads
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="+", help=f"{', '.join(FAMILIES)}, or files such as scores/rdm.py")
    parser.add_argument("--show", action="store_true", help="show what the last run left alive, and stop")
    parser.add_argument("--again", action="store_true", help="try survivors again, after the tests have changed")
    parser.add_argument("--at-most", type=int, metavar="N", help="of each file, N mutants drawn at random")
    options = parser.parse_args()
    PLACE.mkdir(parents=True, exist_ok=True)
    found: dict[str, str] = {}
    for file in (file for what in options.what for file in files_of(what)):
        if options.show:
            stored = PLACE / f"{file.replace('/', '.')}.json"
            found = json.loads(stored.read_text()) if stored.is_file() else {}
            write_mutants([ROOT / "src" / "pulvinar" / file])
            show(found)
        else:
            found |= run(file, again=options.again, at_most=options.at_most)
            print(table(found), flush=True)


if __name__ == "__main__":
    main()
