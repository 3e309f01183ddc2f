"""What the site needs beyond the pages: README.md as its first one, notebooks, and links to files
outside."""

import json
import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]
LINK = re.compile(r"(?<!!)\[([^\]]*)\]\(([^)#:\s]+)(#[^)\s]*)?\)")
PICTURE = re.compile(r'savefig\("(\w+)\.png"')


def on_files(files: Files, config: Any) -> Files:
    """Take README.md as the page ``index.md``, its links being relative to docs/ then, and each
    notebook as a page of its name."""
    text = (ROOT / "README.md").read_text()
    text = re.sub(r'(\]\(|(?:src|srcset|href)=")(?!\w+:|#)', r"\1../", text)
    files.append(File.generated(config, "index.md", content=text.replace("../docs/", "")))
    for path in (ROOT / "docs").glob("*.ipynb"):
        files.append(File.generated(config, f"{path.stem}.md", content=notebook_page(path)))
    return files


def notebook_page(path: Path) -> str:
    """The cells of a notebook as Markdown, and behind one that saves a picture the picture.

    Notebooks are kept without outputs: what ``savefig("NAME.png")`` wrote in one run is
    ``docs/images/<notebook>-NAME.png``.
    """
    title, *cells = json.loads(path.read_text())["cells"]
    parts = ["".join(title["source"]), f"This page is the notebook [{path.name}]({path.name})."]
    for cell in cells:
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            parts.append(source)
            continue
        shell = source.startswith("%%bash\n")
        language, code = ("sh", source.partition("\n")[2]) if shell else ("python", source)
        parts.append(f"```{language}\n{code}\n```")
        for name in PICTURE.findall(code):
            parts.append(f"![{name}](images/{path.stem}-{name}.png)")
    return "\n\n".join(parts)


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    """Point links that leave docs/ to the forge; without ``repo_url`` keep their text alone. A
    link to a notebook leads to its page, from there to the file."""
    folder = posixpath.dirname(page.file.src_uri)

    def replace(link: re.Match[str]) -> str:
        place = posixpath.normpath(posixpath.join("docs", folder, link[2]))
        if place.startswith("docs/"):
            stem, suffix = posixpath.splitext(link[2])
            to_page = suffix == ".ipynb" and place != f"docs/{page.file.src_uri[:-3]}.ipynb"
            return f"[{link[1]}]({stem}.md)" if to_page else link[0]
        if not (ROOT / place).exists():
            raise FileNotFoundError(f"{page.file.src_uri}: {link[0]} leads to no file")
        if config.repo_url:
            return f"[{link[1]}]({config.repo_url.rstrip('/')}/blob/main/{place}{link[3] or ''})"
        return link[1]

    return LINK.sub(replace, markdown)
