"""Hooks of MkDocs: what lies outside of ``docs`` becomes pages, and the reference of families is made from their files.

A guide links a file by its place in the repository, so that the link also works where the repository is browsed.
Documents, examples and notebooks that lie outside of ``docs`` are pages of the site under the address in ``OUTSIDE``,
and links to them are turned to it.
"""

import ast
import json
import posixpath
import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
_LINK = re.compile(r"(?<!\\)(\]\()([^)#\s]+)((?:#[^)\s]*)?(?:\s+\"[^\"]*\")?\))")

_ROLE = re.compile(r":(?:attr|class|func|meth|mod):<code>~?([\w.]+)</code>")


def outside() -> dict[str, str]:
    """Pages made of files outside of ``docs``: paths in the repository, and their addresses in the site."""
    documents = ("CHANGELOG", "CODE_OF_CONDUCT", "CONTRIBUTING", "RELEASE", "SECURITY")
    pages = {f"{name}.md": f"project/{name.lower()}.md" for name in documents if (ROOT / f"{name}.md").exists()}
    pages |= {"README.md": "index.md", "examples/README.md": "examples/index.md"}
    pages["tf_pipeline/assets/sentiment/README.md"] = "bundled_checkpoint.md"
    for path in sorted((ROOT / "examples").iterdir()):
        if path.suffix in (".py", ".ipynb"):
            pages[f"examples/{path.name}"] = f"examples/{path.stem}.md"
    return pages


def families() -> dict[str, list[str]]:
    """The public classes in the file of each family, read without importing it."""
    found = {}
    for path in sorted((ROOT / "tf_pipeline" / "models").glob("[a-z]*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        names = [node.name for node in tree.body if isinstance(node, ast.ClassDef) and node.name.startswith("TF")]
        found[path.stem] = names
    return found


def family_page() -> str:
    """Reference of the classes of all families."""
    lines = ["# Families", ""]
    lines += ["Each class takes what [`TFPreTrainedModel`][tf_pipeline.model.TFPreTrainedModel] takes.", ""]
    for module, names in families().items():
        lines += [f"## {module.replace('_', '-')}", ""]
        for name in names:
            lines += [f"::: tf_pipeline.models.{module}.{name}", "    options:", "      heading_level: 3"]
            lines += ["      members: false", "      show_bases: true", "      show_source: false", ""]
    return "\n".join(lines)


def script_page(path: Path) -> str:
    """A script: its docstring as text, the rest as code."""
    source = path.read_text(encoding="utf-8")
    text = ast.get_docstring(ast.parse(source)) or ""
    title = re.sub(r"^(\d+)_", lambda number: f"{int(number[1])}. ", path.stem).replace("_", " ")
    code = source.split('"""', 2)[2].strip()
    return f"# {title[:1].upper()}{title[1:]}\n\n{text}\n\n````python\n{code}\n````\n"


def notebook_page(path: Path) -> str:
    """A notebook: its texts, its code, and what the code printed when ``examples/outputs.json`` was made."""
    book = json.loads(path.read_text(encoding="utf-8"))
    recorded = json.loads((path.parent / "outputs.json").read_text(encoding="utf-8"))[path.name]
    parts = []
    for cell in book["cells"]:
        text = "".join(cell["source"])
        parts.append(text if cell["cell_type"] == "markdown" else f"```python\n{text}\n```")
        if printed := recorded.get(cell["id"]):
            parts.append(f'<div class="printed" markdown>\n\n```text\n{printed.rstrip()}\n```\n\n</div>')
    return "\n\n".join(parts) + "\n"


def on_files(files: Any, config: Any) -> Any:
    """Add the pages that are made."""
    from mkdocs.structure.files import File

    makers = {".py": script_page, ".ipynb": notebook_page, ".md": lambda path: path.read_text(encoding="utf-8")}
    for source, address in outside().items():
        if source != "README.md":
            path = ROOT / source
            files.append(File.generated(config, address, content=makers[path.suffix](path)))
    files.append(File.generated(config, "api/families.md", content=family_page()))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Turn links to files of the repository to their pages."""
    return relink(markdown, page.file.src_uri)


def on_page_content(html: str, **_: Any) -> str:
    """Turn Sphinx's references of docstrings to links, where the reference has the object."""
    return _ROLE.sub(lambda role: f'<autoref identifier="{role[1]}" optional><code>{role[1]}</code></autoref>', html)


def relink(markdown: str, address: str) -> str:
    """Text of a page in which links lead to pages, not to files of the repository.

    Args:
        markdown: its text.
        address: of the page, in the site.
    """
    pages = outside()
    origins = {target: source for source, target in pages.items() if source != "README.md"}
    folder = posixpath.dirname(origins.get(address, f"docs/{address}"))

    def turned(link: re.Match) -> str:
        opening, target, closing = link.groups()
        if "://" in target or target.startswith("mailto:"):
            return link[0]
        path = posixpath.normpath(posixpath.join(folder, target))
        goal = path.removeprefix("docs/") if path.startswith("docs/") else pages.get(path)
        if goal is None:
            return link[0]
        return opening + posixpath.relpath(goal, posixpath.dirname(address) or ".") + closing

    return _LINK.sub(turned, markdown)
