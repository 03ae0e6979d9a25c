"""The page of scores has every definition there is: those in the code, read from its text, against those of the tables."""

import ast
import csv
from pathlib import Path

import pytest

import pulvinar
from pulvinar.app import glossary, reproduce_page
from pulvinar.decoding.pictures import picture_measures, reconstruction
from pulvinar.report import published_tables
from pulvinar.scores.published import FILE, ROOT, published

SOURCE = Path(pulvinar.__file__).parent


def declared() -> dict[str, str]:
    """Definition -> file, of every `Column(...)` in the package that has a literal one."""
    found = {}
    for path in sorted(SOURCE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Column"):
                continue
            given = node.args[4] if len(node.args) > 4 else None
            given = next((keyword.value for keyword in node.keywords if keyword.arg == "definition"), given)
            if isinstance(given, ast.Constant):
                found[given.value] = path.name
    return found


def test_every_definition_of_the_code_is_on_the_page_of_scores():
    shown = {column.definition for _, columns in glossary.defined().values() for column in columns}
    missing = {text: file for text, file in declared().items() if text not in shown}
    assert missing == {}
    assert len(shown) > 40


def test_every_score_of_a_table_is_defined_once():
    for head, (_, columns) in glossary.TABLES.items():
        scored = [column for column in columns if not column.lead]
        assert [column.key for column in scored if not column.definition] == [], head
        assert len({column.key for column in scored}) == len(scored), head


@pytest.mark.parametrize("wing", sorted(reproduce_page.PUBLISHED))
def test_tables_of_published_numbers_have_a_definition_for_every_column(wing):
    """Oracles: published.csv, and what a reproduction finds in runs (`reproduce_page.UNITS`)."""
    with (ROOT / wing / FILE).open(newline="") as file:
        lines = list(csv.DictReader(file))
    entries = published(wing, sorted({line["table"] for line in lines}))
    table = published_tables.published(entries, [("ours", "made up", {})], columns=reproduce_page.PUBLISHED[wing])
    assert {line["metric"] for line in lines} <= {column.key for column in table.columns}
    assert [column.key for column in table.columns if not column.definition] == []
    known = {column.key for column in reproduce_page.PUBLISHED[wing]}
    assert set(reproduce_page.ALSO.get(wing, ())) <= known


def test_a_networks_features_are_called_the_same_by_papers_and_by_our_measures():
    measured = {measure.name for measure in picture_measures.PUBLISHED_MEASURES}
    compared = {column.key for column in reconstruction.PUBLISHED} - {"pixcorr", "ssim"}
    assert compared == measured


def test_definitions_say_what_comes_out_in_one_sentence():
    for head, (_, columns) in glossary.defined().items():
        for column in columns:
            assert len(column.definition) > 20, (head, column.key)
            assert "\n" not in column.definition
