"""The page of scores has every definition there is: those in the code, read from its text, against those of the tables."""

import ast
from pathlib import Path

import pulvinar
from pulvinar.app import glossary

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


def test_definitions_say_what_comes_out_in_one_sentence():
    for head, (_, columns) in glossary.defined().items():
        for column in columns:
            assert len(column.definition) > 20, (head, column.key)
            assert "\n" not in column.definition
