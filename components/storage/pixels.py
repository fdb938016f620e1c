"""Images in the object store: plain pixels by name, compressed on disk.

An image is a binary PPM (netpbm.sourceforge.net), and the digest of the PPM is its name. Lossless WebP holds the same
pixels in a fraction of the bytes; the encoder that wrote it has no influence on the name. A file is unpacked only if
its header promises no more pixels than an image may have, and the result has to hash to its name.
"""

import io
import re

HEADER = re.compile(rb"P6\n([1-9]\d{0,3}) ([1-9]\d{0,3})\n255\n")
MOST = 16 * 1024 * 1024
"""Most pixels of an image that is packed."""
_LOSSLESS = b"WEBPVP8L"


def pack(content: bytes) -> bytes:
    """The bytes to store for an object: WebP for pixels, if that is smaller; else the object itself."""
    header = HEADER.match(content)
    if header is None:
        return content
    width, height = int(header[1]), int(header[2])
    if width * height > MOST or len(content) - header.end() != 3 * width * height:
        return content
    from PIL import Image

    buffer = io.BytesIO()
    image = Image.frombytes("RGB", (width, height), content[header.end() :])
    image.save(buffer, "WEBP", lossless=True, quality=0, method=0)
    return buffer.getvalue() if buffer.tell() < len(content) else content


def unpack(content: bytes) -> bytes:
    """The PPM that `pack` turned into WebP; any other bytes unchanged."""
    if content[8:16] != _LOSSLESS or len(content) < 25 or content[20] != 0x2F:
        return content
    sides = int.from_bytes(content[21:25], "little")
    width, height = (sides & 0x3FFF) + 1, (sides >> 14 & 0x3FFF) + 1
    if width * height > MOST:
        return content
    from PIL import Image

    try:
        image = Image.open(io.BytesIO(content), formats=("WEBP",))
        if image.size != (width, height):
            return content
        return b"P6\n%d %d\n255\n" % (width, height) + image.convert("RGB").tobytes()
    except (OSError, ValueError, SyntaxError, EOFError):
        return content
