"""What the site needs beyond the pages: README.md as its first one, and links to files outside."""

import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]
LINK = re.compile(r"(?<!!)\[([^\]]*)\]\(([^)#:\s]+)(#[^)\s]*)?\)")


def on_files(files: Files, config: Any) -> Files:
    """Take README.md as the page ``index.md``, its links being relative to docs/ then."""
    text = (ROOT / "README.md").read_text()
    text = re.sub(r'(\]\(|(?:src|srcset|href)=")(?!\w+:|#)', r"\1../", text)
    files.append(File.generated(config, "index.md", content=text.replace("../docs/", "")))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    """Point links that leave docs/ to the forge; without ``repo_url`` keep their text alone."""
    folder = posixpath.dirname(page.file.src_uri)

    def replace(link: re.Match[str]) -> str:
        place = posixpath.normpath(posixpath.join("docs", folder, link[2]))
        if place.startswith("docs/"):
            return link[0]
        if not (ROOT / place).exists():
            raise FileNotFoundError(f"{page.file.src_uri}: {link[0]} leads to no file")
        if config.repo_url:
            return f"[{link[1]}]({config.repo_url.rstrip('/')}/blob/main/{place}{link[3] or ''})"
        return link[1]

    return LINK.sub(replace, markdown)
