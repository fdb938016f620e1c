"""Images in the object store: plain pixels by name, compressed on disk.

An image is a binary PPM (netpbm.sourceforge.net), named by the digest of that. Lossless WebP holds the same pixels in a
fraction of the bytes; which encoder wrote it changes no name. A file is unpacked only where its header promises no more
pixels than were packed, and what comes out has to hash to its name.
"""

import io
import re

HEADER = re.compile(rb"P6\n([1-9]\d{0,3}) ([1-9]\d{0,3})\n255\n")
MOST = 16 * 1024 * 1024
"""Most pixels of an image that is packed."""
_LOSSLESS = b"WEBPVP8L"


def packed(content: bytes) -> bytes:
    """The bytes to store for an object: WebP for pixels, where that is smaller; else the same."""
    header = HEADER.match(content)
    if header is None:
        return content
    width, height = int(header[1]), int(header[2])
    if width * height > MOST or len(content) - header.end() != 3 * width * height:
        return content
    from PIL import Image

    made = io.BytesIO()
    image = Image.frombytes("RGB", (width, height), content[header.end() :])
    image.save(made, "WEBP", lossless=True, quality=0, method=0)
    return made.getvalue() if made.tell() < len(content) else content


def unpacked(stored: bytes) -> bytes:
    """The PPM that `packed` made a file of; any other bytes as they are."""
    if stored[8:16] != _LOSSLESS or len(stored) < 25 or stored[20] != 0x2F:
        return stored
    sides = int.from_bytes(stored[21:25], "little")
    width, height = (sides & 0x3FFF) + 1, (sides >> 14 & 0x3FFF) + 1
    if width * height > MOST:
        return stored
    from PIL import Image

    try:
        image = Image.open(io.BytesIO(stored), formats=("WEBP",))
        if image.size != (width, height):
            return stored
        return b"P6\n%d %d\n255\n" % (width, height) + image.convert("RGB").tobytes()
    except (OSError, ValueError, SyntaxError, EOFError):
        return stored
