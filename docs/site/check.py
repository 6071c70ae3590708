"""Check a built site: ``python docs/site/check.py site``.

Every link, image and script leads to a file of the site, and every fragment to an element of its page; nothing is
fetched from another host; the index of objects has what ``tf_pipeline.__all__`` lists. MkDocs itself checks links of
Markdown alone.
"""

import ast
import re
import sys
import zlib
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urldefrag

ROOT = Path(__file__).resolve().parents[2]
# Attributes that make a browser fetch something by itself.
_FETCHED = {("img", "src"), ("script", "src"), ("link", "href"), ("iframe", "src"), ("source", "src")}
_LINKS = _FETCHED | {("a", "href")}


class Page(HTMLParser):
    """Links and anchors of a page."""

    def __init__(self, path: Path):
        super().__init__()
        self.links, self.anchors = [], set()
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Keep what a tag links and what can be linked."""
        values = dict(attrs)
        self.anchors |= {values[name] for name in ("id", "name") if values.get(name)}
        for name, value in attrs:
            if (tag, name) in _LINKS and value:
                fetched = (tag, name) in _FETCHED and values.get("rel") not in ("canonical", "prev", "next")
                self.links.append((value, fetched))


def problems(site: Path) -> list[str]:
    """What is wrong with the pages of a site."""
    pages = {path: Page(path) for path in site.rglob("*.html")}
    found = []
    for path, page in pages.items():
        for link, fetched in page.links:
            if problem := _problem(link, fetched, path, site, pages):
                found.append(f"{path.relative_to(site)}: {link}: {problem}")
    return found


def _problem(link: str, fetched: bool, path: Path, site: Path, pages: dict[Path, Page]) -> str:
    if re.match(r"[a-z]+:", link) or link.startswith("//"):
        return "is fetched from elsewhere" if fetched and not link.startswith("data:") else ""
    target, fragment = urldefrag(unquote(link))
    if path.name == "404.html" and target.startswith("/"):
        target = f".{target}"
    goal = (path.parent / target).resolve() if target else path
    goal = goal / "index.html" if goal.is_dir() else goal
    if not goal.exists() or site.resolve() not in goal.resolve().parents:
        return "leads nowhere"
    known = pages.get(goal) or pages.get(site / goal.relative_to(site.resolve()))
    if fragment and known and fragment not in known.anchors and not fragment.startswith("__"):
        return "has no such place"
    return ""


def objects(site: Path) -> set[str]:
    """Names in the site's index of objects, ``objects.inv``."""
    data = (site / "objects.inv").read_bytes().split(b"\n", 4)[4]
    return {line.split(" ")[0] for line in zlib.decompress(data).decode().splitlines()}


def missing_names(site: Path) -> list[str]:
    """Names of the package's lists of lazy names that the reference lacks; the package is not imported."""
    source = (ROOT / "tf_pipeline" / "__init__.py").read_text(encoding="utf-8")
    lists = {
        node.targets[0].id: node.value
        for node in ast.parse(source).body
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name)
    }
    names = [ast.literal_eval(lists[name]) for name in ("_AUTO_CLASSES", "_COLLATORS")]
    keys = [key.value for key in ast.walk(lists["_LAZY"]) if isinstance(key, ast.Constant)]
    wanted = {*names[0], *names[1], *(key for key in keys if not key.startswith("tf_pipeline"))} - {"GenerationConfig"}
    known = {name.rpartition(".")[2] for name in objects(site)}
    return sorted(wanted - known)


def main() -> None:
    """Check the site in the folder that is given."""
    site = Path(sys.argv[1])
    found = problems(site) + [f"the reference lacks {name}" for name in missing_names(site)]
    print(*found, sep="\n")
    pages = len(list(site.rglob("*.html")))
    print(f"site: {pages} pages, {len(objects(site))} objects, {len(found)} problems")
    sys.exit(bool(found))


if __name__ == "__main__":
    main()
