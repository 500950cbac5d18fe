"""Photos as cameras and phones write them: with place, time, names and previews beside the picture."""

import io
from functools import cache
from typing import Any

from PIL import Image, ImageCms, PngImagePlugin

ORIENTATION = 0x0112
SECRET = b"5 Hidden Street"
"""What must not be in a kept file, however it got into it."""

_MAKE, _ARTIST, _GPS = 0x010F, 0x013B, 0x8825
_GPS_LATITUDE_REF, _GPS_LATITUDE, _GPS_AREA = 1, 2, 0x1C


def exif(orientation: int | None = 6) -> Image.Exif:
    """Return EXIF with a place, and with an orientation unless that is None."""
    about = Image.Exif()
    if orientation is not None:
        about[ORIENTATION] = orientation
    about[_MAKE] = about[_ARTIST] = SECRET.decode()
    about.get_ifd(_GPS).update({_GPS_LATITUDE_REF: "N", _GPS_LATITUDE: (52.0, 31.0, 12.0), _GPS_AREA: SECRET})
    return about


def xmp(orientation: int | None = None) -> bytes:
    """Return XMP with a place, and with an orientation unless that is None."""
    turned = "" if orientation is None else f' tiff:Orientation="{orientation}"'
    return f'<x:xmpmeta><rdf:Description exif:GPSArea="{SECRET.decode()}"{turned}/></x:xmpmeta>'.encode()


@cache  # it holds the second in which it was made
def profile() -> bytes:
    """Return a colour profile."""
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def texts() -> PngImagePlugin.PngInfo:
    """Return all kinds of text of a PNG, and the time of its last change."""
    info = PngImagePlugin.PngInfo()
    info.add_text("Author", SECRET.decode())
    info.add_text("Comment", SECRET.decode(), zip=True)
    info.add_itxt("Location", SECRET.decode())
    info.add_itxt("XML:com.adobe.xmp", xmp().decode())
    info.add(b"tIME", b"\x07\xea\x0b\x1a\x12\x22\x00")
    info.add(b"prVt", SECRET)  # a program's own
    return info


def taken(image: Image.Image, name: str, orientation: int | None = 6, **options: Any) -> bytes:
    """Return a photo of some format with everything that Pillow can write beside the picture."""
    by_name: dict[str, dict[str, Any]] = {
        "JPEG": {"exif": exif(orientation), "xmp": xmp(), "icc_profile": profile(), "comment": SECRET},
        "PNG": {"exif": exif(orientation), "pnginfo": texts(), "icc_profile": profile()},
        "WEBP": {"exif": exif(orientation), "xmp": xmp(), "icc_profile": profile()},
        "AVIF": {"exif": exif(orientation), "xmp": xmp(), "icc_profile": profile()},
        "GIF": {"comment": SECRET},
    }
    file = io.BytesIO()
    image.save(file, name, **by_name[name], **options)
    return file.getvalue()
