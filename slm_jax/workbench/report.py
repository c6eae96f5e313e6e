"""A report: one HTML page that plays the sounds, shows the pictures and prints the figures of a run.

All links are relative, so that the folder can be moved, zipped and served as it is. No script, no network.
"""

import dataclasses
import html
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from slm_jax.audio.files import write_wav
from slm_jax.evaluation.metrics import marked
from slm_jax.evaluation.section import Section

STYLE = """
:root { color-scheme: light dark; --ink: #1d2430; --soft: #5b6677; --line: #d9dee7; --card: #f6f8fb; --mark: #2456c6; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6e9ef; --soft: #9aa5b5; --line: #333b48; --card: #1b2029; --mark: #8ab0ff; }
  body { background: #12161c; } img { background: #fff; }
}
body { font: 16px/1.55 system-ui, sans-serif; color: var(--ink); }
body { max-width: 60rem; margin: 2.5rem auto; padding: 0 1.2rem; }
h1 { font-size: 1.9rem; margin: 0 0 .3rem; } h2 { margin: 2.6rem 0 .6rem; font-size: 1.3rem; }
p.lead { color: var(--soft); margin-top: 0; } p { max-width: 46rem; }
table { border-collapse: collapse; margin: .8rem 0; font-variant-numeric: tabular-nums; }
th, td { padding: .3rem .9rem .3rem 0; border-bottom: 1px solid var(--line); text-align: right; white-space: nowrap; }
th { color: var(--soft); font-weight: 600; } th:first-child, td:first-child { text-align: left; white-space: normal; }
table.named td:first-child { min-width: 13rem; }
figure { margin: 1rem 0; } figure img { max-width: 100%; border: 1px solid var(--line); border-radius: 6px; }
figcaption { color: var(--soft); font-size: .92rem; margin: .25rem 0; }
.sounds { display: grid; grid-template-columns: repeat(auto-fill, minmax(18rem, 1fr)); gap: .8rem; }
.sounds figure { background: var(--card); border: 1px solid var(--line); border-radius: 8px; }
.sounds figure { padding: .7rem .9rem; margin: 0; }
audio { width: 100%; } code { background: var(--card); padding: .1rem .3rem; border-radius: 4px; }
.scroll { overflow-x: auto; }
"""


@dataclasses.dataclass
class Report:
    """Collects blocks in reading order; `write` makes `report.html` in `folder`."""

    folder: Path
    title: str
    lead: str = ""
    blocks: list[str] = dataclasses.field(default_factory=list)

    def section(self, title: str, *paragraphs: str) -> None:
        """A heading and its paragraphs (plain text)."""
        self.blocks.append(f"<h2>{html.escape(title)}</h2>")
        self.blocks.extend(f"<p>{html.escape(text)}</p>" for text in paragraphs)

    def listen(self, sections: Sequence[Section]) -> None:
        """All sounds together, before the figures; each is kept in the report's folder."""
        clips = [clip for section in sections for clip in section.sounds]
        if clips:
            self.section("Listen", "Held-out speech, and what the system makes of it.")
        kept = [write_wav(self.folder / f"{clip.name}.wav", clip.samples, clip.rate_hz) for clip in clips]
        self.sounds([(path, clip.caption) for path, clip in zip(kept, clips, strict=True)])

    def add(self, section: Section) -> None:
        """What a judge found, without its sounds; pictures are drawn in the report's folder."""
        self.section(section.title, *([section.words] if section.words else []))
        for plot in section.plots:
            path = self.folder / "plots" / f"{plot.name}.png"
            plot.draw(path)
            self.image(path, plot.caption)
        for table in section.tables:
            self.blocks += [f"<h3>{html.escape(table.title)}</h3>"] if table.title else []
            self.table([marked(cell) for cell in table.header], table.rows)

    def command(self, text: str) -> None:
        """The command that made what stands around it."""
        self.blocks.append(f"<p><code>{html.escape(text)}</code></p>")

    def table(self, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
        """A table; floats are shown with three significant decimals."""
        head = "".join(f"<th>{html.escape(cell)}</th>" for cell in header)
        body = "".join(
            "<tr>" + "".join(f"<td>{html.escape(show(cell))}</td>" for cell in row) + "</tr>" for row in rows
        )
        named = ' class="named"' if header and not header[0] else ""  # rows with names instead of a first figure
        self.blocks.append(f'<div class="scroll"><table{named}><tr>{head}</tr>{body}</table></div>')

    def image(self, path: Path, caption: str) -> None:
        """A picture that lies below the report's folder."""
        link = html.escape(self._relative(path))
        text = html.escape(caption)
        self.blocks.append(
            f'<figure><img src="{link}" alt="{text}" loading="lazy"><figcaption>{text}</figcaption></figure>'
        )

    def sounds(self, sounds: Iterable[tuple[Path, str]]) -> None:
        """Players with captions, side by side."""
        sounds = list(sounds)
        if not sounds:
            return
        players = "".join(
            f"<figure><figcaption>{html.escape(caption)}</figcaption>"
            f'<audio controls preload="none" src="{html.escape(self._relative(path))}"></audio></figure>'
            for path, caption in sounds
        )
        self.blocks.append(f'<div class="sounds">{players}</div>')

    def write(self) -> Path:
        """Write the page; returns its path."""
        page = (
            '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
            '<meta name="viewport" content="width=device-width, initial-scale=1">'
            f"<title>{html.escape(self.title)}</title><style>{STYLE}</style></head><body>"
            f'<h1>{html.escape(self.title)}</h1><p class="lead">{html.escape(self.lead)}</p>'
            + "\n".join(self.blocks)
            + "</body></html>\n"
        )
        target = self.folder / "report.html"
        partial = self.folder / ".report.html.partial"
        partial.write_text(page, encoding="utf-8")
        os.replace(partial, target)
        return target

    def _relative(self, path: Path) -> str:
        return Path(path).resolve().relative_to(self.folder.resolve()).as_posix()


def report_of(folder: Path, title: str, lead: str, sections: Sequence[Section], command: str) -> Path:
    """The report of a run: what is heard, one section after the other, and the command; returns its path."""
    page = Report(folder, title, lead)
    page.listen(sections)
    for section in sections:
        page.add(section)
    page.command(command)
    return page.write()


def show(value: Any) -> str:
    """A table cell as text."""
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "–"}[value]
    if isinstance(value, float):
        return f"{value:.3f}" if abs(value) < 1000 else f"{value:,.0f}"
    return f"{value:,}" if isinstance(value, int) else str(value)
