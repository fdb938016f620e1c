"""Images of a task: read as hostile input, kept as plain pixels, named by the digest of the pixels.

The picture alone is kept, upright and opaque, as 8-bit RGB in a binary PPM (netpbm.sourceforge.net): no EXIF, no colour
profile, no thumbnail, nothing behind the end. Two files with the same pixels are the same image, whichever programs
wrote them. Reading a PPM decodes nothing, so it is safe and gives the same in every release.
"""

import io
import warnings
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path, PurePosixPath
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from components.errors import LciaError
from components.storage.objects import digest_of
from components.storage.pixels import HEADER, MOST
from components.tasks.problems import PackageError, Problem, path_fault, read_regular, show

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")
FORMATS = ("PNG", "JPEG", "WEBP")
MAX_IMAGE_BYTES = 16 * 1024 * 1024
"""Largest image file."""
MAX_PIXELS = MOST
MAX_SIDE = 8192
"""Most pixels of an image, and of one side of it; both are checked before anything is decoded."""
MAX_PER_ROW = 8
"""Most images of a row."""
MAX_ALL_PIXELS = 20_000_000_000
"""Default for the most pixels of all images of a package."""
FAULTS = (OSError, ValueError, SyntaxError, EOFError, IndexError, KeyError, TypeError, Image.DecompressionBombError)
"""Exceptions of Pillow on bytes that are no complete image."""


Pixels: TypeAlias = NDArray[np.uint8]


class ImageRefused(LciaError):
    """Bytes that are no image a task may hold; `seen` and `expected` give the reason."""

    def __init__(self, actual: str, rule: str) -> None:
        self.seen, self.expected = actual, rule
        super().__init__(f"an image is refused: seen {actual}, expected {rule}")


class TooManyPixels(PackageError):
    """Images that are small as files, but too many pixels to keep once they are decoded."""

    def __init__(self, most: int) -> None:
        actual, rule = f"more than {most // 1_000_000} million pixels", "at most packages.megapixels, in all images"
        super().__init__("images", [Problem("images", None, None, actual, f"{rule}: fewer or smaller ones")])


@dataclass(frozen=True, slots=True)
class Picture:
    """One image of a row, by the digest of its pixels, which are read on demand."""

    digest: str
    _get: Callable[[], bytes] = field(compare=False, repr=False)

    @classmethod
    def of(cls, file: bytes) -> "Picture":
        """The image of a file's bytes, kept in memory.

        Raises:
            ImageRefused: see `plain_pixels`.
        """
        return cls.of_pixels(plain_pixels(file))

    @classmethod
    def of_pixels(cls, content: bytes) -> "Picture":
        """The image of a PPM file's bytes, kept in memory."""
        return cls(digest_of(content), lambda: content)

    @classmethod
    def by_digest(cls, digest: str, get: Callable[[str], bytes]) -> "Picture":
        """An image that `get` gives by its digest."""
        return cls(digest, partial(get, digest))

    def content(self) -> bytes:
        """The PPM file."""
        return self._get()

    def pixels(self) -> Pixels:
        """Its pixels (height, width, 3).

        Raises:
            ImageRefused: what is stored is no such image.
        """
        return parse_pixels(self.content())

    def png(self) -> bytes:
        """A PNG file of the same pixels, for pages."""
        buffer = io.BytesIO()
        Image.fromarray(self.pixels()).save(buffer, "PNG", compress_level=1)
        return buffer.getvalue()


def plain_pixels(file: bytes) -> bytes:
    """The PPM file of an image file.

    Raises:
        ImageRefused: another format, an animation, too large, damaged or cut off.
    """
    if len(file) > MAX_IMAGE_BYTES:
        raise ImageRefused(f"{len(file)} bytes", f"at most {MAX_IMAGE_BYTES} bytes")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about bombs, whose size is checked here; about EXIF, which is dropped
        try:
            image = Image.open(io.BytesIO(file), formats=FORMATS)
            _need_small(image)
            _need_whole(file, str(image.format))
            image.load()
            upright = _opaque(ImageOps.exif_transpose(image))
        except FAULTS as error:
            unknown = isinstance(error, UnidentifiedImageError)  # its text holds an address in memory
            actual = "bytes of another kind" if unknown else f"{type(error).__name__}: {show(str(error))}"
            raise ImageRefused(actual, "a whole PNG, JPEG or WebP file") from error
    return b"P6\n%d %d\n255\n" % upright.size + upright.tobytes()


def parse_pixels(content: bytes) -> Pixels:
    """Pixels (height, width, 3) of a PPM file as `plain_pixels` writes it.

    Raises:
        ImageRefused: it is none.
    """
    header = HEADER.match(content)
    if header is None or len(content) - header.end() != 3 * int(header[1]) * int(header[2]):
        raise ImageRefused(f"{len(content)} bytes that are no stored image", "a binary PPM of 8-bit RGB")
    return np.frombuffer(content, np.uint8, offset=header.end()).reshape(int(header[2]), int(header[1]), 3)


def _need_small(image: Image.Image) -> None:
    width, height = image.size
    if max(width, height) > MAX_SIDE or width * height > MAX_PIXELS:
        raise ImageRefused(f"{width} x {height} pixels", f"at most {MAX_SIDE} a side and {MAX_PIXELS} in all")
    frames = getattr(image, "n_frames", 1)
    if frames != 1 and image.format != "MPO":  # a camera's JPEG with a second, smaller picture behind the first
        raise ImageRefused(f"an animation of {frames} frames", "one still image")
    if image.mode.startswith(("I", "F")):
        raise ImageRefused(f"pixels of mode {image.mode}", "8 bits a channel")


def _need_whole(file: bytes, kind: str) -> None:
    """Refuse a file that lacks its end: decoders don't always notice."""
    if kind == "PNG":
        whole = b"IEND\xaeB`\x82" in file
    elif kind == "WEBP":
        whole = int.from_bytes(file[4:8], "little") + 8 <= len(file)
    else:
        whole = file.rfind(b"\xff\xd9") > file.rfind(b"\xff\xda")
    if not whole:
        raise ImageRefused(f"a {kind} file that is cut off after {len(file)} bytes", "a whole file")


def _opaque(image: Image.Image) -> Image.Image:
    """The image as RGB, transparent parts on white."""
    if not image.has_transparency_data:
        return image.convert("RGB")
    above = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", above.size, "white"), above).convert("RGB")


class Album:
    """The images of a package folder; each file is checked once, and none is kept in memory.

    Raises:
        TooManyPixels: on the picture that takes the total above `most_pixels`.
    """

    def __init__(self, folder: Path, files: Collection[str], most_pixels: int = MAX_ALL_PIXELS) -> None:
        self._folder, self._files = folder, files
        self._most = self._left = most_pixels
        self._known: dict[str, Picture | ImageRefused] = {}

    @property
    def names(self) -> Collection[str]:
        """Names that rows gave."""
        return self._known.keys()

    def pictures(self, names: object) -> Iterator[Picture | tuple[str, str, str]]:
        """Pictures of a row's `image`, a path or a list of paths; a fault (as `layouts.Fault`) for a bad one."""
        paths = names if isinstance(names, list) else [names]
        if not 1 <= len(paths) <= MAX_PER_ROW:
            yield "image", f"{len(paths)} images", f"1 to {MAX_PER_ROW}"
            return
        for number, path in enumerate(paths):
            field = f"image[{number}]" if isinstance(names, list) else "image"
            if not isinstance(path, str):
                yield field, show(path), "a path inside the package, such as images/1.png, or a list of paths"
                continue
            picture = self._picture(path)
            if isinstance(picture, ImageRefused):
                yield field, f"{show(path)}: {picture.seen}", picture.expected
            else:
                yield picture

    def _picture(self, name: str) -> Picture | ImageRefused:
        if name not in self._known:
            try:
                content = self._read(name)
            except ImageRefused as why:
                self._known[name] = why
            else:
                self._left -= parse_pixels(content).size // 3
                if self._left < 0:
                    raise TooManyPixels(self._most)
                self._known[name] = Picture(digest_of(content), partial(self._read, name))
        return self._known[name]

    def _read(self, name: str) -> bytes:
        fault = path_fault(name)
        if fault or not is_image(name):
            raise ImageRefused(fault or "another kind of file", f"a file inside the package: {', '.join(SUFFIXES)}")
        if name not in self._files:
            raise ImageRefused("no such file", "an image file of the package")
        file = read_regular(self._folder / name, name, MAX_IMAGE_BYTES)
        if isinstance(file, Problem):
            raise ImageRefused(file.seen, file.expected)
        return plain_pixels(file)


NO_IMAGES = Album(Path(), ())
"""Album for rows that come without files."""


def is_image(name: str) -> bool:
    """True if a file has an image's name."""
    return PurePosixPath(name).suffix.lower() in SUFFIXES
