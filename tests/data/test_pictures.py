"""Files of pictures as they come: every one is read right, or refused with what came and what fits."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageCms, ImageOps, PngImagePlugin

from pulvinar.core.config import mistakes_of
from pulvinar.core.errors import FileError, InputError
from pulvinar.data import image_ids
from pulvinar.data.image_files import ImageFiles, find_images
from pulvinar.data.photographs import read_picture
from pulvinar.data.pictures import SUFFIXES, PictureOptions, decode, look_into

GENERATOR = np.random.default_rng(0)
COLOURS = GENERATOR.integers(0, 256, (6, 9, 3), dtype=np.uint8)
DEEP = GENERATOR.integers(0, 65536, (6, 9, 4), dtype=np.uint16)


def png_16(pixels, *, colour_type: int, key: tuple[int, ...] = ()) -> bytes:
    """A 16-bit PNG written from the format's description: each row has a filter of its own (none, sub or up)."""
    height, width, channels = pixels.shape
    step, rows, above = 2 * channels, b"", np.zeros(2 * channels * width, np.uint8)
    for number, row in enumerate(pixels.astype(">u2")):
        line = np.frombuffer(row.tobytes(), np.uint8)
        before = (np.zeros_like(line), np.concatenate([np.zeros(step, np.uint8), line[:-step]]), above)[number % 3]
        rows, above = rows + bytes([number % 3]) + (line - before).tobytes(), line

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    transparent = chunk(b"tRNS", struct.pack(f">{len(key)}H", *key)) if key else b""
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 16, colour_type, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + transparent + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def png_of_few_bits(values, *, bits: int, key: int) -> bytes:
    """A grey PNG of 2 or 4 bits, one of whose greys is transparent."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    places = np.arange(bits - 1, -1, -1)
    rows = b"".join(b"\0" + np.packbits((row[:, None] >> places & 1).ravel()).tobytes() for row in values)
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", values.shape[1], values.shape[0], bits, 0, 0, 0, 0))
    parts = [head, chunk(b"tRNS", struct.pack(">H", key)), chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def tiff(values, **tags: tuple[int, ...]) -> bytes:
    """A TIFF of one strip from the format's description: (height, width, sample); tags by number, as t262=(0,)."""
    given = {256: (values.shape[1],), 257: (values.shape[0],), 258: (8 * values.itemsize,) * values.shape[2], 259: (1,)}
    given |= {262: (1,), 277: (values.shape[2],), 278: (values.shape[0],), 279: (values.nbytes,)}
    given |= {int(name[1:]): numbers for name, numbers in tags.items()}
    entries, extra, start = [], b"", 8 + 2 + 12 * (len(given) + 1) + 4
    for tag, numbers in sorted({**given, 273: (0,)}.items()):
        content = struct.pack(f"<{len(numbers)}H", *numbers)
        if len(content) > 4:
            content, extra = struct.pack("<I", start + len(extra)), extra + content
        entries.append((tag, len(numbers), content.ljust(4, b"\0")))
    strip = struct.pack("<I", start + len(extra))
    table = [struct.pack("<HHI", tag, 4 if tag == 273 else 3, n) + (strip if tag == 273 else at) for tag, n, at in entries]
    return struct.pack("<2sHIH", b"II", 42, 8, len(table)) + b"".join(table) + bytes(4) + extra + values.tobytes()


def tiff_16(path, pixels, **kwargs) -> None:
    tifffile = pytest.importorskip("tifffile")
    tifffile.imwrite(path, pixels, photometric="rgb" if pixels.ndim == 3 else "minisblack", **kwargs)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", [".png", ".tif", ".webp"])
def test_a_picture_stands_upright(tmp_path, orientation, suffix):
    """Oracle: Pillow's own turning."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(COLOURS).save(tmp_path / f"a{suffix}", exif=exif, **({"lossless": True} if suffix == ".webp" else {}))
    found = decode(tmp_path / f"a{suffix}")
    turned = Image.fromarray(COLOURS)
    turned.getexif()[0x0112] = orientation
    np.testing.assert_array_equal(found.pixels, np.asarray(ImageOps.exif_transpose(turned)))
    assert found.notes == (("turned upright, as EXIF says",) if orientation > 1 else ())


@pytest.mark.parametrize(("name", "background"), [("white", 255), ("black", 0), ("grey", 128), ("#102030", (16, 32, 48))])
def test_transparent_pixels_stand_on_the_background(tmp_path, name, background):
    """Oracle: alpha c + (1 - alpha) b, in float64."""
    alpha = GENERATOR.integers(0, 256, (6, 9, 1), dtype=np.uint8)
    Image.fromarray(np.concatenate([COLOURS, alpha], 2)).save(tmp_path / "a.png")
    share = alpha / 255.0
    expected = np.rint(COLOURS * share + np.array(background) * (1 - share))
    found = decode(tmp_path / "a.png", PictureOptions(background=name))
    assert np.abs(found.pixels - expected).max() <= 1  # halves may round either way
    assert (found.pixels == expected).mean() > 0.98
    assert found.notes == (f"transparent pixels put on {name}",)
    with pytest.raises(InputError, match=r"a\.png: has transparent pixels.*background=white"):
        decode(tmp_path / "a.png", PictureOptions(background="refuse"))


def test_opaque_alpha_changes_nothing(tmp_path):
    Image.fromarray(np.concatenate([COLOURS, np.full((6, 9, 1), 255, np.uint8)], 2)).save(tmp_path / "a.png")
    found = decode(tmp_path / "a.png", PictureOptions(background="refuse"))
    np.testing.assert_array_equal(found.pixels, COLOURS)
    assert found.notes == ()


def test_transparency_of_palettes_and_single_colours(tmp_path):
    """A palette entry, a grey value and a colour that the file declares transparent, in PNG and GIF."""
    grey = (np.arange(54, dtype=np.uint8) * 3).reshape(6, 9)
    palette = Image.fromarray(grey).convert("P")
    palette.save(tmp_path / "p.png", transparency=60)
    palette.save(tmp_path / "p.gif", transparency=60)
    Image.fromarray(grey).save(tmp_path / "l.png", transparency=60)
    Image.fromarray(COLOURS).save(tmp_path / "rgb.png", transparency=tuple(COLOURS[2, 3].tolist()))
    expected = np.where(grey == 60, 255, grey)
    for name in ("p.png", "p.gif", "l.png"):
        np.testing.assert_array_equal(decode(tmp_path / name).pixels[..., 1], expected, err_msg=name)
    where = (COLOURS[2, 3] == COLOURS).all(-1)[..., None]
    np.testing.assert_array_equal(decode(tmp_path / "rgb.png").pixels, np.where(where, 255, COLOURS))


@pytest.mark.parametrize(("bits", "key"), [(2, 0), (2, 2), (4, 5), (4, 15)])
def test_a_transparent_grey_of_few_bits(tmp_path, bits, key):
    """Oracle: the grey by its definition, v / (2^bits - 1). Pillow widens the pixels, and not the transparent grey."""
    values = GENERATOR.integers(0, 2**bits, (6, 10), dtype=np.uint8)
    (tmp_path / "a.png").write_bytes(png_of_few_bits(values, bits=bits, key=key))
    grey = np.repeat((values * (255 // (2**bits - 1)))[..., None], 3, 2)
    expected = np.where((values == key)[..., None], (255, 0, 0), grey)
    np.testing.assert_array_equal(decode(tmp_path / "a.png", PictureOptions(background="#ff0000")).pixels, expected)


def test_tiff_that_would_be_read_as_other_numbers_is_refused(tmp_path):
    """Each of these Pillow reads without a word: inverted, as noise, shifted by 128, black."""
    deep, few = DEEP[..., :1], COLOURS[..., :1]
    cases = {
        "WhiteIsZero": tiff(deep, t262=(0,)),
        "in a plane for each": tiff(DEEP[..., :3], t262=(2,), t284=(2,)),
        "with a sign": tiff(few, t339=(2,)),
        "palette of 8 bits": tiff(few, t262=(3,), t320=tuple(range(256)) * 3),
        "packed as 'RGBa;16L'": tiff(DEEP, t262=(2,), t338=(1,)),
    }
    for what, content in cases.items():
        (tmp_path / "a.tif").write_bytes(content)
        with pytest.raises(InputError, match=rf"a\.tif.*{what}"):
            decode(tmp_path / "a.tif")
    readable = {"inverted": tiff(few, t262=(0,)), "palette": tiff(few, t262=(3,), t320=tuple(range(0, 65536, 257)) * 3)}
    for what, content in readable.items():
        (tmp_path / "a.tif").write_bytes(content)
        expected = np.repeat(255 - few if what == "inverted" else few, 3, 2)
        np.testing.assert_array_equal(decode(tmp_path / "a.tif").pixels, expected)


def test_colours_that_are_not_as_the_file_says_are_said(tmp_path):
    picture = Image.fromarray(COLOURS)
    plain = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    picture.save(tmp_path / "a.png", icc_profile=plain)
    assert decode(tmp_path / "a.png").notes == ()
    other = plain.replace("sRGB built-in".encode("utf-16-be"), "Display P3 ng".encode("utf-16-be"))
    picture.save(tmp_path / "a.png", icc_profile=other)
    found = decode(tmp_path / "a.png")
    assert found.notes == ("colours taken as they stand, without the colour profile 'Display P3 ng'",)
    np.testing.assert_array_equal(found.pixels, COLOURS)
    linear = PngImagePlugin.PngInfo()
    linear.add(b"gAMA", struct.pack(">I", 100_000))
    picture.save(tmp_path / "a.png", pnginfo=linear)
    assert decode(tmp_path / "a.png").notes == ("colours taken as they stand, without the file's gamma of 1",)
    picture.save(tmp_path / "a.png", icc_profile=b"no profile")
    assert decode(tmp_path / "a.png").notes == (
        "colours taken as they stand, without the colour profile 'that cannot be read'",
    )


def test_what_is_no_picture_is_refused_with_what_is_read(tmp_path):
    (tmp_path / "a.jpg").write_bytes(b"<html>404</html>")
    with pytest.raises(FileError, match=r"a\.jpg.*none of PNG, JPEG, .*in a form that is read$"):
        decode(tmp_path / "a.jpg")


def test_drawings_that_the_background_swallows_are_refused(tmp_path):
    shape = np.zeros((6, 9), np.uint8)
    shape[2:4, 3:7] = 255
    for name, ink in (("dark", 0), ("light", 255)):
        Image.fromarray(np.dstack([np.full((6, 9, 3), ink, np.uint8), shape])).save(tmp_path / f"{name}.png")
    np.testing.assert_array_equal(decode(tmp_path / "dark.png").pixels[..., 0], 255 - shape)
    with pytest.raises(InputError, match=r"light\.png: on white its drawing vanishes; give the background"):
        decode(tmp_path / "light.png")
    np.testing.assert_array_equal(decode(tmp_path / "light.png", PictureOptions(background="black")).pixels[..., 0], shape)
    Image.fromarray(np.dstack([COLOURS, np.zeros((6, 9), np.uint8)])).save(tmp_path / "none.png")
    with pytest.raises(InputError, match="all of it is transparent"):
        decode(tmp_path / "none.png")


def test_16_bits_are_scaled(tmp_path):
    """Oracle: v 255 / 65535, rounded; whatever the container, byte order and compression."""
    (tmp_path / "rgb.png").write_bytes(png_16(DEEP[..., :3], colour_type=2))
    (tmp_path / "rgba.png").write_bytes(png_16(DEEP, colour_type=6))
    Image.fromarray(DEEP[..., 0]).save(tmp_path / "grey.png")
    expected = np.rint(DEEP / 257.0)
    for order in ("<", ">"):
        for compression in (None, "zlib"):
            tiff_16(tmp_path / f"rgb{order}{compression}.tif", DEEP[..., :3], byteorder=order, compression=compression)
        tiff_16(tmp_path / f"grey{order}.tif", DEEP[..., 0], byteorder=order)
    for path in sorted(tmp_path.glob("rgb[.<>]*")):
        found = decode(path)
        np.testing.assert_array_equal(found.pixels, expected[..., :3], err_msg=path.name)
        assert "16 bits a colour scaled to 8" in found.notes
    for path in sorted(tmp_path.glob("grey*")):
        np.testing.assert_array_equal(decode(path).pixels, np.repeat(expected[..., :1], 3, 2), err_msg=path.name)
    share = DEEP[..., 3:] / 65535
    mixed = expected[..., :3] * share + 255 * (1 - share)
    assert np.abs(decode(tmp_path / "rgba.png").pixels - mixed).max() <= 0.51
    key = tuple(int(value) for value in DEEP[1, 2, :3])
    (tmp_path / "key.png").write_bytes(png_16(DEEP[..., :3], colour_type=2, key=key))
    assert decode(tmp_path / "key.png").pixels[1, 2].tolist() == [255, 255, 255]


def test_12_bits_in_16_need_a_word(tmp_path):
    (tmp_path / "a.png").write_bytes(png_16(DEEP[..., :3] // 16, colour_type=2))
    with pytest.raises(InputError, match=r"a\.png: 16 bits, but nothing is above 40\d\d of 65535.*white=4095"):
        decode(tmp_path / "a.png")
    found = decode(tmp_path / "a.png", PictureOptions(white=4095)).pixels
    np.testing.assert_array_equal(found, np.rint(DEEP[..., :3] // 16 * (255 / 4095)))
    assert decode(tmp_path / "a.png", PictureOptions(white=65535)).pixels.max() < 17
    with pytest.raises(InputError, match=r"is above the value of white, 1000"):
        decode(tmp_path / "a.png", PictureOptions(white=1000))
    (tmp_path / "la.png").write_bytes(png_16(DEEP[..., :2], colour_type=4))
    with pytest.raises(InputError, match=r"la\.png: 16 bits a colour packed as"):
        decode(tmp_path / "la.png")


def test_floating_and_whole_numbers_in_tiff(tmp_path):
    values = GENERATOR.random((6, 9)).astype(np.float32)
    Image.fromarray(values).save(tmp_path / "unit.tif")
    np.testing.assert_array_equal(decode(tmp_path / "unit.tif").pixels[..., 2], np.rint(values * 255))
    for name, wrong in (("bytes", values * 255), ("signed", values - 0.5), ("nan", np.where(values < 0.1, np.nan, values))):
        Image.fromarray(wrong.astype(np.float32)).save(tmp_path / f"{name}.tif")
        with pytest.raises(InputError, match=rf"{name}\.tif: pixels in \[0, 1\] are needed"):
            decode(tmp_path / f"{name}.tif")
    Image.fromarray((values * 1000).astype(np.int32)).save(tmp_path / "whole.tif")
    with pytest.raises(InputError, match=r"whole\.tif: whole numbers of 32 bits"):
        decode(tmp_path / "whole.tif")


@pytest.mark.parametrize("suffix", [".gif", ".png", ".webp", ".tif"])
def test_several_frames_are_refused(tmp_path, suffix):
    frames = [Image.fromarray(COLOURS), Image.fromarray(255 - COLOURS)]
    frames[0].save(tmp_path / f"a{suffix}", save_all=True, append_images=frames[1:])
    with pytest.raises(InputError, match="2 frames or pages"):
        decode(tmp_path / f"a{suffix}")


def test_one_frame_of_every_suffix_and_whatever_it_is_called(tmp_path):
    for suffix in (".png", ".bmp", ".tiff", ".ppm", ".TIF", ".PNG"):
        Image.fromarray(COLOURS).save(tmp_path / f"a{suffix}")
        np.testing.assert_array_equal(decode(tmp_path / f"a{suffix}").pixels, COLOURS)
    Image.fromarray(COLOURS).save(tmp_path / "really_a_bmp.png", format="BMP")
    np.testing.assert_array_equal(decode(tmp_path / "really_a_bmp.png").pixels, COLOURS)
    np.testing.assert_array_equal(read_picture(tmp_path / "a.bmp"), COLOURS)
    flat = Image.new("RGB", (8, 8), (200, 30, 60))
    flat.convert("CMYK").save(tmp_path / "cmyk.jpg", quality=95)
    found = decode(tmp_path / "cmyk.jpg")
    assert np.abs(found.pixels.astype(int) - (200, 30, 60)).max() <= 3
    assert found.notes == ("CMYK taken as red, green and blue without a colour profile",)
    for name, content in (("html.jpg", b"<html>404</html>"), ("empty.png", b""), ("eps.png", b"%!PS-Adobe-3.0 EPSF-3.0\n")):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(FileError, match=f"{name}: cannot be read as an image"):
            decode(tmp_path / name)


def test_a_folder_says_what_it_leaves_out(tmp_path, capsys):
    for name in ("b.tif", "a.PNG", "c.gif"):
        Image.fromarray(COLOURS).save(tmp_path / name)
    for name in ("._a.png", "Thumbs.db", ".DS_Store", "notes.txt", "d.heic"):
        (tmp_path / name).write_bytes(b"x")
    for name in ("__MACOSX", ".ipynb_checkpoints", "more"):
        (tmp_path / name).mkdir()
    assert list(find_images(tmp_path)) == ["a", "b", "c"]
    said = capsys.readouterr().err
    assert "5 hidden files, thumbnails and folders of the system: .DS_Store, ._a.png, .ipynb_checkpoints, Thumbs.db" in said
    assert "2 files that are no pictures, or folders: d.heic, notes.txt" in said
    assert [path.name for path in look_into(tmp_path).folders] == ["more"]
    with pytest.raises(FileError, match="no such folder"):
        look_into(tmp_path / "none")


def test_what_was_done_is_said_once_for_all_images(tmp_path, capsys):
    for name in ("a", "b", "c"):
        Image.fromarray(np.dstack([COLOURS, np.full((6, 9), 200, np.uint8)])).save(tmp_path / f"{name}.png")
    read = ImageFiles(list(find_images(tmp_path).values()))
    for row in (0, 1, 1):
        read(row)
    assert capsys.readouterr().err.count("transparent pixels put on white") == 1
    assert read.notes.lines(3) == ["2 of 3 pictures: transparent pixels put on white (e.g. a.png)"]


def test_options_that_do_not_fit():
    assert mistakes_of(PictureOptions(background="#a0B1c2", white=4095), "pictures") == []
    assert "background: white" in mistakes_of(PictureOptions(background="pink"), "pictures")[0]
    assert mistakes_of(PictureOptions(white=0), "pictures") == ["pictures.white lies in [1, 65535], or none, not 0"]


def test_a_jpeg_with_a_second_picture_inside_gives_the_first(tmp_path):
    first, second = (Image.fromarray(np.full((8, 8, 3), value, np.uint8)) for value in (40, 220))
    buffer = io.BytesIO()
    first.save(buffer, "MPO", save_all=True, append_images=[second])
    (tmp_path / "a.jpg").write_bytes(buffer.getvalue())
    found = decode(tmp_path / "a.jpg")
    assert np.abs(found.pixels.astype(int) - 40).max() <= 2
    assert found.notes == ("the first of several pictures in one .jpg",)


def test_every_suffix_that_is_read_is_cut_off_in_ids():
    assert set(SUFFIXES) <= image_ids.SUFFIXES
