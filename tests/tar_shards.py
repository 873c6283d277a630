"""WebDataset shards for tests, as tarfile writes them."""

import io
import tarfile

from PIL import Image

COLORS = ["red", "green", "blue", "yellow", "black", "orange"]


def picture(color: str, kind: str = "PNG") -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (8, 8), color).save(file, kind)
    return file.getvalue()


def write_tar(file, samples: list[dict[str, bytes]]):
    """Sample i is named 00i; a value is what stands in its part of that extension."""
    with tarfile.open(file, "w") as tar:
        for i, sample in enumerate(samples):
            for part, content in sample.items():
                info = tarfile.TarInfo(f"folder/{i:03}.{part}")
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
    return file


def packed(files: dict, links: dict | None = None, **settings) -> bytes:
    """The bytes of a tar; `settings` are those of tarfile."""
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w", **settings) as tar:
        for name, value in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(value)
            tar.addfile(member, io.BytesIO(value))
        for name, (kind, target) in (links or {}).items():
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, target
            tar.addfile(member)
    return content.getvalue()


def shards(folder, **parts):
    """Two shards of three; `parts`: extension → what makes its content of a colour."""
    for number in range(2):
        colors = COLORS[3 * number : 3 * number + 3]
        write_tar(folder / f"{number}.tar", [{part: make(c) for part, make in parts.items()} for c in colors])
    return folder
