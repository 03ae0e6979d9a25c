"""Every example runs as a newcomer would run it: a program of its own, in an empty folder, on one thread."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
NOTEBOOK = ROOT / "examples" / "notebook.ipynb"
OUTPUT = {"select_voxels.py": ["precision", "accuracy    VoxelSelector"]}


def test_there_are_examples():
    assert EXAMPLES


@pytest.mark.long
@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_example_runs(path, tmp_path):
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MPLBACKEND": "Agg", "PYTHONPATH": str(ROOT / "src")}
    done = subprocess.run(
        [sys.executable, str(path)], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    for words in OUTPUT.get(path.name, []):
        assert words in done.stdout, done.stdout


def test_the_notebook_is_kept_without_outputs():
    cells = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    assert [cell for cell in cells if cell.get("outputs") or cell.get("execution_count")] == []


@pytest.mark.slow
def test_the_notebook_runs_and_shows_each_thing_once(tmp_path):
    """A kernel of its own: nothing on stderr, tables as HTML, one picture of the figure, no table below the report's path."""
    nbclient = pytest.importorskip("nbclient", reason="needs the group docs")
    nbformat = pytest.importorskip("nbformat", reason="needs the group docs")
    pytest.importorskip("ipykernel", reason="needs the group docs")
    subprocess.run([sys.executable, str(ROOT / "examples" / "plant_study.py")], cwd=tmp_path, check=True)
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbclient.NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}}).execute()
    outputs = [cell.outputs for cell in notebook.cells if cell.cell_type == "code"]
    assert [output.text for cell in outputs for output in cell if output.output_type == "stream"] == []
    data, fitted, evaluated, table, masks, n_kept, figure, page = outputs
    for cell in (data, fitted, evaluated, table, masks):
        assert [output.output_type for output in cell] == ["execute_result"]
        assert "<table" in cell[0].data["text/html"]
    assert n_kept[0].data["text/plain"].endswith("40.0)")
    assert ["image/png" in output.data for output in figure] == [False, True]
    assert [output.data["text/plain"] for output in page] == ["PosixPath('runs/notebook/report.html')"]
