"""Tables. Oracle: the rows that were written."""

import numpy as np
import pytest

from pulvinar.core.errors import FileError, InputError, NotFoundError
from pulvinar.data.tables import read_table, read_trials


def write(tmp_path, text, name="trials.csv"):
    (tmp_path / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    return tmp_path / name


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("x.csv", "stimulus,run\na,1\n b ,2\n"),
        ("x.csv", "\ufeffstimulus;run\r\na;1\r\nb;2\r\n\r\n"),
        ("x.tsv", "stimulus\trun\na\t1\n\nb\t2"),
        ("x.csv", '"stimulus","run"\n"a",1\n"b","2"\n'),
        ("x.csv", '"stimulus","run"\n" a ",1\n"b\u00a0","2"\n'),
        ("x.csv", "stimulus,run\ra,1\rb,2\r"),
        ("x.csv", "stimulus\trun\na\t1\nb\t2\n"),
        ("x.tsv", "stimulus,run\na,1\nb,2\n"),
        ("x.csv", "sep=;\nstimulus;run\na;1\nb;2\n"),
        ("x.csv", "\ufeffSEP=\t\r\nstimulus\trun\r\na\t1\r\nb\t2\r\n"),
        ("x.csv", "stimulus,run,,\na,1,,\n,,,\nb,2,,\n"),
        ("x.csv", "stimulus,run\na,1,\nb,2,\n,,\n"),
        ("x.csv", ",stimulus,run\n0,a,1\n1,b,2\n"),
        ("x.csv", "Unnamed: 0;stimulus;run\n0;a;1\n1;b;2\n"),
        ("x.csv", "stimulus;run\na;1\nb;2\n".encode("utf-16")),
        ("x.csv", "stimulus,run\na,1\nb,2\n".encode("utf-32")),
    ],
)
def test_the_usual_dialects_give_the_same_columns(tmp_path, name, text):
    table = read_table(write(tmp_path, text, name))
    assert dict(table.columns) == {"stimulus": ["a", "b"], "run": ["1", "2"]}
    assert len(table) == 2


def test_lines_are_counted_as_an_editor_does(tmp_path):
    table = read_table(write(tmp_path, 'id,label\na,"two\nlines"\n\nb,\n'))
    assert table.columns["label"] == ["two\nlines", ""]
    with pytest.raises(InputError, match="column 'label' is empty in 1 rows, first in line 5"):
        table.full_column("label")


@pytest.mark.parametrize(
    ("name", "text", "error", "message"),
    [
        ("x.csv", "", InputError, "the table is empty"),
        ("x.csv", "stimulus\n", InputError, "the table is empty"),
        ("x.csv", "a,b\n1,2\n3\n", InputError, r"x\.csv: line 3 has 1 cells, the header has 2"),
        ("x.csv", "a,a\n1,2\n", InputError, r"stand twice in the header: \['a'\]"),
        ("x.csv", b"a,b\n\xff,1\n", FileError, "cannot be read as a UTF-8 table: byte 0xff in line 2.* save it as UTF-8"),
        ("x.csv", "a,b\n1,2\n".encode("utf-16-le"), FileError, "holds zero bytes"),
        ("x.csv", "a,A\n1,2\n", InputError, r"stand twice in the header: \['A', 'a'\]"),
        ("x.csv", "a,b\n1,2\na,b\n3,4\n", InputError, r"line 3 repeats the header; leave it out"),
        ("x.csv", "img,1,1\nimg,1,1\n", InputError, r"\['1'\]; is the header line missing"),
        ("x.csv", "Study,,\na,b,c\n", InputError, "does a title stand above it"),
        ("x.csv", b"PK\x03\x04\x00\x00", (FileError, InputError), "x.csv"),
        ("x.csv", 'a,b\n"1,2\n', FileError, "cannot be read as a UTF-8 table"),
        ("x.xlsx", "a,b\n1,2\n", FileError, r"tables are read from \.csv and \.tsv, not from '\.xlsx'"),
    ],
)
def test_what_is_no_table_is_refused(tmp_path, name, text, error, message):
    with pytest.raises(error, match=message):
        read_table(write(tmp_path, text, name))


def test_trials_of_several_files_follow_each_other(tmp_path):
    first = write(tmp_path, "image,session,run,label\na,1,1,x\nb,1,2,y\n", "one.csv")
    second = write(tmp_path, "image\tsession\trun\tlabel\na\t2\t1\tx\n", "two.tsv")
    trials = read_trials([first, second], stimulus_column="image")
    assert trials.stimulus_ids == ["a", "b", "a"]
    assert (trials.sessions.tolist(), trials.runs.tolist()) == ([1, 1, 2], [1, 2, 1])
    assert trials.attributes == {"label": ["x", "y", "x"]}
    assert trials.sessions.dtype == np.int64


def test_named_sessions_are_numbered_in_order(tmp_path, capsys):
    trials = read_trials([write(tmp_path, "stimulus,session\na,ses-b\nb,ses-a\nc,ses-b\n")])
    assert trials.sessions.tolist() == [0, 1, 0]
    assert trials.runs.tolist() == [0, 0, 0]
    assert "ses-b = 0, ses-a = 1" in capsys.readouterr().err


def test_missing_columns_and_cells_are_named(tmp_path):
    path = write(tmp_path, "stimuls,run\na,1\n")
    with pytest.raises(NotFoundError, match=r"trials\.csv: no column 'stimulus'; did you mean 'stimuls'"):
        read_trials([path])
    with pytest.raises(NotFoundError, match=r"there are: image, run\. .*stimulus_column = 'image'"):
        read_trials([write(tmp_path, "image,run\na,1\n", "image.csv")])
    with pytest.raises(InputError, match="column 'stimulus' is empty in 1 rows, first in line 3"):
        read_trials([write(tmp_path, "stimulus,run\na,1\n,2\n")])
    other = write(tmp_path, "stimulus\na\n", "other.csv")
    with pytest.raises(InputError, match=r"other\.csv: no column 'run', which .*trials\.csv has"):
        read_trials([write(tmp_path, "stimulus,run\na,1\n"), other])


def test_columns_are_found_in_any_case_and_none_has_many_words(tmp_path):
    trials = read_trials([write(tmp_path, "Stimulus,SESSION,Split\na,ses-3,test\nb,2.0,n/a\n")])
    assert (trials.stimulus_ids, trials.sessions.tolist()) == (["a", "b"], [3, 2])
    assert trials.attributes == {"split": ["test", ""]}
    for word in ("n/a", "NaN", "nan", "NULL", ""):
        with pytest.raises(InputError, match="column 'stimulus' is empty in 1 rows, first in line 3"):
            read_trials([write(tmp_path, f"stimulus,run\na,1\n{word},1\n")])
        with pytest.raises(InputError, match="column 'session' is empty in 1 rows"):
            read_trials([write(tmp_path, f"stimulus,session\na,1\nb,{word}\n")])
