"""Damage and malice: other bytes for a file. What each kind of file is made of is changed where a reader would look at it.

Half of all changes are blind (bits, lengths, pieces); the others keep the outside whole, so that they reach what lies behind a
checksum: members of archives are packed again, PNG chunks get their CRC, headers stay parseable.
"""

import gzip
import io
import json
import re
import struct
import tomllib
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import h5py
import numpy as np

NUMBERS = (0, 1, -1, 2, 127, 255, 32767, 65535, 2**24, 2**31 - 1, 2**31, 2**32 - 1, 2**40, 2**62, 2**63 - 1)
HUGE = (2**20, 2**31, 2**40, 2**62)
ODD_VALUES: tuple[Any, ...] = (
    *(
        None,
        True,
        False,
        0,
        -1,
        1,
        3.5,
        -0.0,
        1e308,
        10**30,
        2**63,
        "",
        "x",
        "nan",
        "none",
        "../../etc/passwd",
        "/dev/zero",
        "a\0b",
    ),
    *(
        "x" * 5000,
        [],
        {},
        [[]],
        [None],
        {"": None},
        [1, "a"],
        {"a": {"a": {"a": []}}},
        "<script>alert(1)</script>",
        "\ud800",
        "9" * 5000,
    ),
)
DTYPES = ("<f8", "<f4", "<f2", "<i8", "|i1", "|u1", "|b1", "<c16", "<U5", "|S3", "|V7", "<M8[s]", "<m8[D]", ">f4", ">i2")
SHAPES: tuple[tuple[int, ...], ...] = ((), (0,), (1,), (0, 3), (3, 0), (1, 1, 1, 1, 1, 1), (5, 4), (7,), (2, 2, 2), (1, 0, 1))


def mutate(path: Path, content: bytes, other: bytes, random: Random) -> bytes:
    """The content of a file, changed once or a few times; other: a file to take pieces from."""
    suffix = next((end for end in STRUCTURED if path.name.lower().endswith(end)), "")
    n_blind = random.choice((1, 1, 1, 2, 3))
    if suffix and random.random() < 0.7:  # first, while the file is whole: libraries take it apart
        try:
            content, n_blind = random.choice(STRUCTURED[suffix])(content, other, random), random.choice((0, 0, 0, 0, 1))
        except Exception:  # this change needs what the file does not have
            n_blind = 1
    for _ in range(n_blind):
        content = random.choice(BLIND)(content, other, random)
    return content


# --- blind --------------------------------------------------------------------------------------------------------------


def _place(content: bytes, random: Random) -> int:
    """Mostly near the beginning, where headers are."""
    limit = len(content) if random.random() < 0.5 else min(len(content), 512)
    return random.randrange(max(1, limit))


def flip_bits(content: bytes, _: bytes, random: Random) -> bytes:
    changed = bytearray(content or b"\0")
    for _ in range(random.choice((1, 1, 2, 8))):
        changed[_place(bytes(changed), random) % len(changed)] ^= 1 << random.randrange(8)
    return bytes(changed)


def cut(content: bytes, _: bytes, random: Random) -> bytes:
    return content[: _place(content, random)]


def empty(*_: Any) -> bytes:
    return b""


def drop(content: bytes, _: bytes, random: Random) -> bytes:
    start = _place(content, random)
    return content[:start] + content[start + random.choice((1, 2, 4, 8, 64, 512)) :]


def duplicate(content: bytes, _: bytes, random: Random) -> bytes:
    start = _place(content, random)
    piece = content[start : start + random.choice((1, 4, 16, 256, 4096))]
    return content[:start] + piece * random.choice((2, 3, 50)) + content[start + len(piece) :]


def splice(content: bytes, other: bytes, random: Random) -> bytes:
    at, start = _place(content, random), random.randrange(max(1, len(other)))
    piece = other[start : start + random.choice((4, 16, 256, 4096))]
    return content[:at] + piece + content[at + len(piece) * random.randrange(2) :]


def zeros(content: bytes, _: bytes, random: Random) -> bytes:
    start, n = _place(content, random), random.choice((1, 4, 16, 256))
    return content[:start] + bytes([random.choice((0, 255))]) * n + content[start + n :]


def number(content: bytes, _: bytes, random: Random) -> bytes:
    """A binary number that is large, negative or nothing, in either byte order."""
    start, form = _place(content, random), random.choice(("<b", "<h", "<i", "<q", ">h", ">i", ">q", "<d", "<f"))
    value = random.choice(NUMBERS)
    if form[1] in "df":
        packed = struct.pack(form, random.choice((float("nan"), float("inf"), -1.0, 1e30, 0.0)))
    else:
        packed = (value % 2 ** (8 * struct.calcsize(form))).to_bytes(
            struct.calcsize(form), "little" if form[0] == "<" else "big"
        )
    return content[:start] + packed + content[start + len(packed) :]


def digits(content: bytes, _: bytes, random: Random) -> bytes:
    """A number written in digits."""
    found = list(re.finditer(rb"\d+", content[:20000]))
    if not found:
        return flip_bits(content, b"", random)
    match = random.choice(found)
    return content[: match.start()] + str(random.choice(NUMBERS)).encode() + content[match.end() :]


def noise(content: bytes, _: bytes, random: Random) -> bytes:
    start, n = _place(content, random), random.choice((1, 3, 17, 300))
    return content[:start] + random.randbytes(n) + content[start + n * random.randrange(2) :]


BLIND: tuple[Callable[[bytes, bytes, Random], bytes], ...] = (
    *(flip_bits, flip_bits, cut, drop, duplicate, splice, zeros, number, number, digits, noise),
)


# --- text ---------------------------------------------------------------------------------------------------------------


def _nodes(value: Any, found: list[tuple[Any, Any]]) -> list[tuple[Any, Any]]:
    """(container, key) of everything inside a JSON value."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in list(items):
        found.append((value, key))
        _nodes(inner, found)
    return found


def _changed_value(value: Any, random: Random) -> Any:
    nodes = _nodes(value, [])
    if not nodes or random.random() < 0.05:
        return random.choice(ODD_VALUES)
    container, key = random.choice(nodes)
    if random.random() < 0.2:
        del container[key]
    elif random.random() < 0.3:
        there, other = random.choice(nodes)
        if isinstance(there, dict) or other < len(there):
            container[key] = json.loads(json.dumps(there.get(other) if isinstance(there, dict) else there[other]))
    else:
        container[key] = random.choice(ODD_VALUES)
    return value


SEAL = "sha256_of_the_rest"


def json_value(content: bytes, _: bytes, random: Random) -> bytes:
    value = json.loads(content)
    if isinstance(value, dict):
        value.pop(SEAL, None)
    return json.dumps(_changed_value(value, random)).encode("utf-8", "surrogatepass")


def json_deep(content: bytes, _: bytes, random: Random) -> bytes:
    n = random.choice((500, 100_000))
    return b"[" * n + b"]" * n if random.random() < 0.5 else b'{"a":' * n + b"1" + b"}" * n


def toml_value(content: bytes, _: bytes, random: Random) -> bytes:
    value = tomllib.loads(content.decode())
    flat = _changed_value(value, random)
    lines: list[str] = []
    _write_toml(flat if isinstance(flat, dict) else {"x": flat}, "", lines)
    return "\n".join(lines).encode("utf-8", "replace")


def _write_toml(table: dict[str, Any], name: str, lines: list[str]) -> None:
    if name:
        lines.append(f"[{name}]")
    for key, value in table.items():
        if not isinstance(value, dict) and not (isinstance(value, list) and value and all(isinstance(v, dict) for v in value)):
            lines.append(f"{json.dumps(str(key))} = {json.dumps('none' if value is None else value)}")
    for key, value in table.items():
        own = f"{name}.{json.dumps(key)}" if name else json.dumps(key)
        if isinstance(value, dict):
            _write_toml(value, own, lines)
        elif isinstance(value, list) and value and all(isinstance(v, dict) for v in value):
            for part in value:
                lines.append(f"[[{own}]]")
                _write_toml(part, "", lines)


def toml_deep(content: bytes, _: bytes, random: Random) -> bytes:
    n = random.choice((500, 20_000))
    return random.choice((b"x = " + b"[" * n, b"x = " + b"{a = " * n, b".".join([b"a"] * n) + b" = 1"))


def cells(content: bytes, _: bytes, random: Random) -> bytes:
    """A cell of a table."""
    lines = content.split(b"\n")
    row = random.randrange(len(lines))
    mark = b"\t" if b"\t" in content else b","
    parts = lines[row].split(mark)
    new = random.choice(
        (
            b"",
            b"nan",
            b"n/a",
            b"-1",
            b"1e400",
            b"9" * 30,
            b'"',
            b"'",
            b"x" * 200_000,
            b"\xff",
            b"\0",
            b"inf",
            b"1_0",
            b"\xd9\xa3",
        )
    )
    parts[random.randrange(len(parts))] = new
    lines[row] = mark.join(parts)
    return b"\n".join(lines)


# --- arrays -------------------------------------------------------------------------------------------------------------


def _npy(values: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, values, allow_pickle=False)
    return buffer.getvalue()


def _odd_array(random: Random) -> np.ndarray:
    dtype, shape = np.dtype(random.choice(DTYPES)), random.choice(SHAPES)
    values = np.zeros(shape, dtype)
    if dtype.kind == "f" and values.size and random.random() < 0.5:
        values[...] = random.choice((np.nan, np.inf, -1, 1e30 if dtype.itemsize > 2 else 1))
    return values


def npy_other(content: bytes, _: bytes, random: Random) -> bytes:
    """Another type or shape with values that fit it, or the same values in another shape."""
    if random.random() < 0.5:
        return _npy(_odd_array(random))
    values = np.load(io.BytesIO(content), allow_pickle=False)
    turns = (values[None], values.T, values[:1], values[:0], values.ravel(), values.astype(random.choice(DTYPES[:5])), -values)
    return _npy(random.choice(turns))


def npy_header(content: bytes, _: bytes, random: Random) -> bytes:
    """A header that states what is not there."""
    (length,) = struct.unpack("<H", content[8:10])
    shape = random.choice([*SHAPES, *((n,) for n in HUGE), *((n, 3) for n in HUGE), (-1,), (2**40, 2**40), (0, 2**62)])
    descr = random.choice(
        [*map(repr, DTYPES), "'|O'", "[('a', '<f4'), ('b', '|O')]", "'<f4,<f4'", "'|V2147483647'", "'<U536870911'"]
    )
    text = f"{{'descr': {descr}, 'fortran_order': {random.choice((True, False, 3))}, 'shape': {shape}, }}"
    return content[:8] + struct.pack("<H", len(text) + 1) + text.encode() + b"\n" + content[10 + length :]


def zip_member(content: bytes, other: bytes, random: Random) -> bytes:
    """A member changed and packed again, renamed, taken out, twice, or all zeros and long."""
    members = {}
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        members = {info.filename: archive.read(info) for info in archive.infolist()}
    name = random.choice(list(members))
    kind = random.random()
    if kind < 0.6:
        members[name] = mutate(Path(name), members[name], other, random)
    elif kind < 0.7:
        members[random.choice(("x.npy", "../x.npy", "id.npy", "", "submit_fmri.zip", "a/b"))] = members.pop(name)
    elif kind < 0.8:
        del members[name]
    elif kind < 0.9:
        second = random.choice(list(members))
        members[name], members[second] = members[second], members[name]
    else:
        members[name] = _npy(np.zeros(1, "<f4"))[:-4].replace(b"(1,)", b"(400000000,)").ljust(128) + bytes(50_000_000)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", random.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED))) as archive:
        for key, value in members.items():
            archive.writestr(key or "empty", value)
    return buffer.getvalue()


def zip_bomb(content: bytes, _: bytes, random: Random) -> bytes:
    """A member that unpacks to 1.5 GB, under a name that is looked for."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        name = random.choice(archive.namelist())
    return _bomb(name)


_PACKED: list[tuple[bytes, int, int]] = []


def _packed_zeros() -> tuple[bytes, int, int]:
    """A deflated .npy of 1.5 GB of zeros, its checksum and its size: a block of zeros, packed once, again and again."""
    if not _PACKED:
        header, zeros, n = (
            _npy(np.zeros(375, "<f4"))[:128].replace(b"(375,), }      ", b"(375000000,), }"),
            bytes(10_000_000),
            150,
        )
        packer = zlib.compressobj(6, zlib.DEFLATED, -15)
        first, block = (
            packer.compress(header) + packer.flush(zlib.Z_FULL_FLUSH),
            packer.compress(zeros) + packer.flush(zlib.Z_FULL_FLUSH),
        )
        check = zlib.crc32(header)
        for _ in range(n):
            check = zlib.crc32(zeros, check)
        _PACKED.append((first + block * n + packer.flush(), check, len(header) + n * len(zeros)))
    return _PACKED[0]


def warm_up() -> None:
    """What takes a second the first time."""
    _packed_zeros()
    _zeros_to_append()


def _bomb(name: str) -> bytes:
    content, check, size = _packed_zeros()
    fields = struct.pack("<HHHIIIHH", 8, 0, 33, check, len(content), size, len(name.encode()), 0)
    local = b"PK\3\4" + struct.pack("<HH", 20, 0) + fields + name.encode() + content
    entry = b"PK\1\2" + struct.pack("<HHH", 20, 20, 0) + fields + struct.pack("<HHHII", 0, 0, 0, 0, 0) + name.encode()
    return local + entry + b"PK\5\6" + struct.pack("<HHHHIIH", 0, 0, 1, 1, len(entry), len(local), 0)


def gz_inside(content: bytes, other: bytes, random: Random) -> bytes:
    return gzip.compress(mutate(Path("inner.nii"), gzip.decompress(content), other, random), 1, mtime=0)


_LONG: list[bytes] = []


def _zeros_to_append() -> bytes:
    if not _LONG:
        _LONG.append(gzip.compress(bytes(2**28), 6, mtime=0) * 8)
    return _LONG[0]


def gz_bomb(content: bytes, _: bytes, random: Random) -> bytes:
    """The file with two gigabytes of zeros behind it, or a header that wants them."""
    inner = bytearray(gzip.decompress(content))
    if random.random() < 0.7 and len(inner) > 60:
        struct.pack_into("<8h", inner, 40, 4, 1000, 1000, 500, 1, 1, 1, 1)
    return gzip.compress(bytes(inner), 1, mtime=0) + _zeros_to_append()


def nifti_header(content: bytes, _: bytes, random: Random) -> bytes:
    """Dimensions, type, offset or form of a NIfTI header."""
    changed = bytearray(content)
    form, start = random.choice(
        [
            *(("<h", 40 + 2 * place) for place in range(8)),
            ("<h", 70),
            ("<h", 72),
            ("<f", 108),
            ("<f", 112),
            ("<f", 116),
            ("<h", 252),
            ("<h", 254),
            ("<b", 123),
            ("<i", 0),
            ("<i", 348),
            ("<i", 352),
            ("<4s", 344),
        ]  # fmt: skip
    )
    if form == "<4s":
        changed[344:348] = random.choice((b"n+1\0", b"ni1\0", b"n+2\0", b"abcd"))
    elif form == "<f":
        struct.pack_into(form, changed, start, random.choice((0.0, -1.0, float("nan"), float("inf"), 1e30, 352.0, 16.0)))
    else:
        low, high = {"<h": (-(2**15), 2**15 - 1), "<b": (-128, 127), "<i": (-(2**31), 2**31 - 1)}[form]
        value = random.choice((0, -1, 1, 2, 3, 4, 7, 16, 64, 128, 512, 1024, 1536, 2048, low, high))
        struct.pack_into(form, changed, start, max(low, min(high, value)))
    return bytes(changed)


def hdf5_node(content: bytes, _: bytes, random: Random) -> bytes:
    """A dataset, group or attribute of an HDF5 file replaced by something else that HDF5 can hold."""
    buffer = io.BytesIO(content)
    with h5py.File(buffer, "r+") as file:
        names: list[str] = []
        file.visit(names.append)
        name = random.choice(names)
        kind = random.randrange(13)
        if kind == 0:
            del file[name]
        elif kind == 1:
            second = random.choice(names)
            file["__swap__"] = file[name]
            del file[name]
            file[name] = file[second if second in file else "__swap__"]
        elif kind == 2:
            file[name].attrs[random.choice(("scale", "template", "MATLAB_class", "MATLAB_empty", "units", "scale_factor"))] = (
                random.choice((0, -1, np.nan, "text", b"\xff\xfe", np.zeros((2, 2)), h5py.Empty("f"), 1e300))
            )
        else:
            dataset = file[name] if isinstance(file[name], h5py.Dataset) else None
            values = dataset[...] if dataset is not None else None
            del file[name]
            _put(file, name, values, kind, random)
    return buffer.getvalue()


def _put(file: h5py.File, name: str, values: Any, kind: int, random: Random) -> None:
    if kind == 3:
        file[name] = h5py.Empty(random.choice(("f", "i", "S5")))
    elif kind == 4:
        file[name] = _odd_array(random) if (odd := _odd_array(random)).dtype.kind in "mMU" else odd
    elif kind == 5:
        file.create_group(name)
    elif kind == 6:
        shape = random.choice(((2**40,), (2**20, 2**20), (2**31, 3), (100_000, 100_000)))
        file.create_dataset(name, shape=shape, dtype=random.choice(("f4", "i2", "u1")), chunks=tuple(min(n, 64) for n in shape),
                            compression=random.choice((None, "gzip")))  # fmt: skip
    elif kind == 7:
        file[name] = h5py.ExternalLink(random.choice(("/etc/passwd", "other.h5", "/dev/zero", "")), "/values")
    elif kind == 8:
        file[name] = h5py.SoftLink(random.choice(("/", f"/{name}", "/nothing", "/id")))
    elif kind == 9:
        file.create_dataset(name, shape=(10, 10), dtype="f4", external=[("/etc/passwd", 0, 400)])
    elif kind == 10:
        layout = h5py.VirtualLayout(shape=(10, 10), dtype="f4")
        layout[...] = h5py.VirtualSource(
            random.choice(("/etc/passwd", "other.h5", ".")), random.choice(("values", name)), shape=(10, 10)
        )
        file.create_virtual_dataset(name, layout)
    elif kind == 11:
        file.create_dataset(name, data=[random.choice(("a", "\0", "é" * 100, ""))] * 5, dtype=h5py.string_dtype())
    elif values is not None and values.dtype != object:
        turned = random.choice(
            (
                values[None],
                values[..., None],
                values[:1],
                values[:0],
                -values if values.dtype.kind in "if" else values,
                values.ravel()[0],
            )
        )
        file[name] = turned
    else:
        file[name] = np.zeros(3, [("a", "f4"), ("b", "S3")])


def safetensors_header(content: bytes, other: bytes, random: Random) -> bytes:
    (length,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + length])
    if random.random() < 0.3 and "json" in header.get("__metadata__", {}):
        header["__metadata__"]["json"] = json_value(header["__metadata__"]["json"].encode(), other, random).decode(
            "utf-8", "replace"
        )
        header["__metadata__"].pop("sha256", None)
    elif random.random() < 0.5:
        entry = header[random.choice([key for key in header if key != "__metadata__"])]
        key = random.choice(("dtype", "shape", "data_offsets"))
        entry[key] = random.choice(
            (
                [0],
                [],
                [2**62, 2],
                [-1],
                [1, 1, 1],
                ["a"],
                None,
                "F32",
                "I8",
                "BOOL",
                "F8_E4M3",
                "BF16",
                "X9",
                [0, 2**62],
                [8, 4],
                3,
            )
        )
        header.get("__metadata__", {}).pop("sha256", None)
    else:
        header.get("__metadata__", {}).pop("sha256", None)
        header = _changed_value(header, random)
    text = json.dumps(header).encode("utf-8", "surrogatepass")
    return struct.pack("<Q", len(text)) + text + content[8 + length :]


# --- pictures -----------------------------------------------------------------------------------------------------------


def png_chunk(content: bytes, _: bytes, random: Random) -> bytes:
    """A chunk changed, with the checksum that fits: sizes, depth, palette, pixels."""
    chunks, start = [], 8
    while start + 8 <= len(content):
        length = int.from_bytes(content[start : start + 4], "big")
        chunks.append([content[start + 4 : start + 8], content[start + 8 : start + 8 + length]])
        start += length + 12
    chosen = random.choice(chunks)
    if chosen[0] == b"IHDR" and random.random() < 0.6:
        width, height = random.choice(
            ((0, 0), (1, 2**31 - 1), (20_000, 20_000), (2**31 - 1, 2**31 - 1), (12_000, 12_000), (1, 1))
        )
        chosen[1] = struct.pack(">II", width, height) + bytes(
            [random.choice((1, 2, 4, 8, 16, 3)), random.choice((0, 2, 3, 4, 6, 5)), 0, 0, random.choice((0, 1))]
        )
    elif random.random() < 0.5:
        chosen[1] = random.choice(BLIND)(chosen[1], b"", random)
    else:
        kind = random.choice((b"tRNS", b"PLTE", b"iCCP", b"zTXt", b"eXIf", b"gAMA", b"acTL", b"fcTL", b"cHRM", b"pHYs"))
        body = random.choice(
            (b"", b"\0", b"abc\0\0" + zlib.compress(bytes(2**20)), random.randbytes(30), b"MM\0*\0\0\0\x08\0\xff")
        )
        chunks.insert(random.randrange(1, len(chunks)), [kind, body])
    packed = [len(body).to_bytes(4, "big") + name + body + zlib.crc32(name + body).to_bytes(4, "big") for name, body in chunks]
    return content[:8] + b"".join(packed)


# --- XML of GIFTI and CIFTI ---------------------------------------------------------------------------------------------


def attribute(content: bytes, _: bytes, random: Random) -> bytes:
    """An attribute of an XML element."""
    found = list(re.finditer(rb'(\w+)="([^"]*)"', content[:200_000]))
    match = random.choice(found)
    new = random.choice((b"", b"0", b"-1", b"3", b"6", b"2147483647", b"1e9", b"99999999999", b"ASCII", b"Base64Binary", b"GZipBase64Binary",
                         b"ExternalFileBinary", b"/etc/passwd", b"NIFTI_TYPE_FLOAT64", b"NIFTI_TYPE_UINT8", b"BigEndian", b"NIFTI_INTENT_NONE", b"&a;"))  # fmt: skip
    return content[: match.start(2)] + new + content[match.end(2) :]


def entities(content: bytes, _: bytes, random: Random) -> bytes:
    """Entities that unfold to gigabytes."""
    lines = b"".join(b'<!ENTITY %c "%s">' % (97 + row, b"&%c;" % (96 + row) * 10) for row in range(1, 10))
    start = content.find(b"<GIFTI")
    return content[:start].split(b"<!DOCTYPE")[0] + b'<!DOCTYPE x [<!ENTITY a "' + b"a" * 1000 + b'">' + lines + b"]>" + content[start:].replace(
        b"<MetaData>", b"<MetaData>&j;", 1)  # fmt: skip


# --- pickle -------------------------------------------------------------------------------------------------------------


def pickled(content: bytes, _: bytes, random: Random) -> bytes:
    """Operations that nest, count or ask for much, in place of what follows the header."""
    (length,) = struct.unpack("<H", content[8:10])
    deep = random.choice((1000, 100_000))
    body = random.choice(
        (
            b"\x80\x02" + b")" + b"\x85" * deep + b".",
            b"\x80\x02}" + b")" + b"\x85" * deep + b"K\x01s.",
            b"\x80\x02]r\xff\xff\xff\x7f.",
            b"\x80\x02X\xff\xff\xff\x7fabc.",
            b"\x80\x04\x8e\xff\xff\xff\xff\xff\xff\xff\x7fabc.",
            b"cos\nsystem\n(S'true'\ntR.",
            b"\x80\x02" + b"(" * deep + b".",
            b"\x80\x02\x8b\xff\xff\xff\x7f.",
            b"\x80\x02" + b"l" * 10 + b".",
            b"I" + b"9" * 5000 + b"\n.",
        )  # fmt: skip
    )
    return content[: 10 + length] + body


def mat_tag(content: bytes, _: bytes, random: Random) -> bytes:
    """A tag (type and length) of a MATLAB 5 file."""
    start = 128 + 8 * random.randrange(max(1, min(40, (len(content) - 136) // 8)))
    kind = random.choice((0, 1, 2, 5, 6, 7, 9, 12, 13, 14, 15, 16, 17, 255, 2**31))
    tag = struct.pack("<II", kind, random.choice((0, 1, 4, 8, 56, 10**6, 2**31 - 1, 2**32 - 1)))
    return content[:start] + tag + content[start + 8 :]


def mat_inside(content: bytes, other: bytes, random: Random) -> bytes:
    """What is compressed in a MATLAB 5 file, changed and compressed again."""
    kind, length = struct.unpack("<II", content[128:136])
    if kind != 15:
        return mat_tag(content, other, random)
    inner = zlib.decompress(content[136 : 136 + length])
    inner = random.choice((number, flip_bits, mat_tag, cut))(bytes(128) + inner, other, random)[128:]
    packed = zlib.compress(inner)
    return content[:128] + struct.pack("<II", 15, len(packed)) + packed + content[136 + length :]


STRUCTURED: dict[str, tuple[Callable[[bytes, bytes, Random], bytes], ...]] = {
    ".json": (json_value, json_value, json_value, json_deep, digits),
    ".jsonl": (digits, cells),
    ".toml": (toml_value, toml_value, toml_value, toml_deep, digits),
    ".csv": (cells,),
    ".tsv": (cells,),
    "mapping.npy": (pickled, npy_header),
    ".npy": (npy_other, npy_header),
    ".npz": (zip_member, zip_member, zip_member, zip_bomb),
    ".zip": (zip_member, zip_member, zip_bomb),
    ".pt": (zip_member,),
    ".h5": (hdf5_node,),
    ".hdf5": (hdf5_node,),
    "_73.mat": (hdf5_node,),
    ".mat": (mat_tag, mat_inside, number),
    ".safetensors": (safetensors_header,),
    ".surf.gii": (attribute, attribute, attribute, entities),
    ".nii.gz": (gz_inside, gz_inside, gz_inside, gz_bomb),
    ".mgz": (gz_inside,),
    ".nii": (nifti_header, nifti_header, attribute),
    ".png": (png_chunk,),
}
