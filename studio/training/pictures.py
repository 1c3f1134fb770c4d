"""Pictures as they are trained on: upright, in sRGB, eight bits a channel; what had to be changed is said."""

from __future__ import annotations

import hashlib
import io
import struct
import warnings
import zlib
from typing import TYPE_CHECKING

from PIL import Image, ImageCms, ImageOps, UnidentifiedImageError

from studio.errors import RequestError
from studio.training.records import FIELD, Example, Kind, Limits

if TYPE_CHECKING:
    import numpy as np

FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF", "AVIF")
EIGHT_BITS = ("1", "L", "P", "RGB", "CMYK", "YCbCr", "RGBA", "LA", "PA", "RGBX")
SIXTEEN_BITS = ("I;16", "I;16L", "I;16B", "I;16N", "I")
UPRIGHT = (None, 1)  # what EXIF's orientation says of a picture that lies as it should
ORIENTATION = 0x0112
GROUND = (255, 255, 255)  # what shows through where a picture is transparent
DAMAGE = (OSError, ValueError, SyntaxError, EOFError, IndexError, KeyError, TypeError, OverflowError)
DAMAGE += (struct.error, zlib.error, RuntimeError)  # the last is what AVIF's decoder raises


class PictureError(RequestError):
    """A picture that cannot be trained on; the message says why and what to do, ``kind`` which problem it is."""

    def __init__(self, message: str, kind: Kind) -> None:
        super().__init__(message, field=FIELD)
        self.kind = kind


def load(example: Example, limits: Limits = Limits()) -> Image.Image:
    """The pixels of an example, RGB. Raises PictureError when its file is no longer the one that was read."""
    try:
        data = example.file.read(limits.max_picture_bytes)
    except OSError as error:
        raise PictureError(f"{example.name} cannot be read any more; put it back and try again.", "corrupt") from error
    if hashlib.sha256(data).hexdigest() != example.sha256:
        raise PictureError(f"{example.name} has changed since it was looked at; choose the pictures again.", "corrupt")
    return decode(data, limits)[0]


def decode(data: bytes, limits: Limits = Limits()) -> tuple[Image.Image, tuple[str, ...]]:
    """Bytes of a picture file -> RGB picture, and what was changed to get it, one clause each. Raises PictureError."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # our own limit on pixels is the lower one; odd metadata does not matter
            with Image.open(io.BytesIO(data), formats=FORMATS) as picture:
                return _decoded(picture, limits)
    except UnidentifiedImageError:
        listed = ", ".join(FORMATS)
        raise PictureError(f"is no picture that can be read, so it is left out; use {listed}.", "corrupt") from None
    except Image.DecompressionBombError:
        raise _too_large("far too many", limits) from None
    except DAMAGE:
        raise PictureError("is damaged, so it is left out; save it anew or delete it.", "corrupt") from None


def _decoded(picture: Image.Image, limits: Limits) -> tuple[Image.Image, tuple[str, ...]]:
    width, height = picture.size
    if width * height > limits.max_pixels:
        raise _too_large(f"{width:,} x {height:,}", limits)
    changes = list(_frame_change(picture))
    picture.load()
    upright = ImageOps.exif_transpose(picture)
    if picture.getexif().get(ORIENTATION) not in UPRIGHT:
        changes.append("it is turned upright as its EXIF data says")
    shown, more = _in_srgb(upright)
    if min(shown.size) < limits.min_side:
        small = f"has {shown.width} x {shown.height} pixels, so it is left out;"
        raise PictureError(f"{small} give each side at least {limits.min_side}.", "too_small")
    return shown, (*changes, *more)


def _frame_change(picture: Image.Image) -> tuple[str, ...]:
    frames = getattr(picture, "n_frames", 1)  # formats of a single picture have no such attribute
    if frames == 1 or picture.format == "MPO":  # a phone's second picture is a depth map or a preview
        return ()
    what = "pages" if picture.format == "TIFF" else "frames"
    return (f"of its {frames:,} {what} only the first is used",)


def _in_srgb(picture: Image.Image) -> tuple[Image.Image, list[str]]:
    """Every mode that the formats have -> RGB in sRGB, and the clauses that say how."""
    if picture.mode in SIXTEEN_BITS:
        return _from_sixteen_bits(picture), ["its 16 bits become 8"]
    if picture.mode not in EIGHT_BITS:
        raise PictureError(f"has pixels of the kind {picture.mode}, so it is left out; save it in 8 bits.", "format")
    if picture.has_transparency_data:
        return _on_ground(picture), ["its transparent parts become white"]
    profile = picture.info.get("icc_profile")
    plain, profiled = _with_profile(picture, profile) if profile else (picture.convert("RGB"), "")
    if picture.mode == "CMYK":
        return plain, [f"its CMYK colours become RGB{' by its profile' if profiled else ''}"]
    return plain, [f"its colours ({profiled}) become sRGB"] if profiled else []


def _from_sixteen_bits(picture: Image.Image) -> Image.Image:
    """PIL clips 16 bits at 255 when it converts them; here 65535 becomes 255, rounded."""
    import numpy as np

    values = np.asarray(picture)
    if values.min(initial=0) < 0 or values.max(initial=0) > 65535:
        raise PictureError("has pixels of 32 bits, so it is left out; save it in 8 or 16 bits.", "format")
    return Image.fromarray(_eighth(values)).convert("RGB")


def _eighth(values: np.ndarray) -> np.ndarray:
    import numpy as np

    return np.rint(values.astype(np.float32) / 257).astype(np.uint8)


def _on_ground(picture: Image.Image) -> Image.Image:
    """Its colour profile, where it has one, is applied before the ground is laid under it."""
    cut = picture.convert("RGBA")
    profile = picture.info.get("icc_profile")
    colours = _with_profile(cut.convert("RGB"), profile)[0] if profile else cut.convert("RGB")
    ground = Image.new("RGB", cut.size, GROUND)
    ground.paste(colours, mask=cut.getchannel("A"))
    return ground


def _with_profile(picture: Image.Image, profile: bytes) -> tuple[Image.Image, str]:
    """By the picture's ICC profile to sRGB, and that profile's name; a name of "" when there was nothing to do.

    A profile that does not fit its picture is ignored, as every viewer does.
    """
    try:
        theirs = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        name = " ".join(ImageCms.getProfileDescription(theirs).split())[:40]
        if "srgb" in name.lower():
            return picture.convert("RGB"), ""
        base = picture if picture.mode in ("RGB", "L", "CMYK") else picture.convert("RGB")
        turned = ImageCms.profileToProfile(base, theirs, ImageCms.createProfile("sRGB"), outputMode="RGB")
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        return picture.convert("RGB"), ""
    return turned, name or "a profile of its own"


def _too_large(found: str, limits: Limits) -> PictureError:
    most = limits.max_pixels / 1e6
    return PictureError(f"has {found} pixels, so it is left out; shrink it to {most:.0f} million.", "too_large")
