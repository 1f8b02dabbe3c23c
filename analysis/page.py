"""One HTML page that needs nothing but itself: text, tables, pictures as data, a light style.

    page("A report", [section("Results", paragraph("..."), table([...], [...], caption="..."))])

Reads   plain text, which is escaped here and nowhere else, and PNG bytes
Writes  HTML: `Html` is text that is markup already, everything else is taken literally
"""

import base64
import struct
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import NewType

Html = NewType("Html", str)

STYLE = Path(__file__).with_name("page.css")
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
"""What a browser may load for the page: nothing."""
SHOWN_SCALE = 2
"""Pixels of a picture per pixel of the page."""


def page(title: str, lead: str, sections: Sequence[Html], footer: str) -> str:
    """The whole document."""
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">\n'
        f"<title>{escape(title)}</title>\n<style>\n{STYLE.read_text()}</style>\n</head>\n<body>\n"
        f'<header>\n<h1>{escape(title)}</h1>\n<p class="lead">{escape(lead)}</p>\n</header>\n'
        + "\n".join(sections)
        + f"\n<footer>{escape(footer)}</footer>\n</body>\n</html>\n"
    )


def section(heading: str, *blocks: Html) -> Html:
    """A heading and what belongs to it."""
    return Html(f"<section>\n<h2>{escape(heading)}</h2>\n" + "\n".join(blocks) + "\n</section>")


def paragraph(text: str) -> Html:
    return Html(f"<p>{escape(text)}</p>")


def warning(text: str) -> Html:
    """A paragraph that must not be overlooked."""
    return Html(f'<p class="warning">{escape(text)}</p>')


def bullets(texts: Sequence[str]) -> Html:
    return Html("<ul>\n" + "\n".join(f"<li>{escape(text)}</li>" for text in texts) + "\n</ul>")


def table(
    header: Sequence[str],
    rows: Sequence[Sequence[str]],
    caption: str,
    align: str,
    last_apart: bool = False,
) -> Html:
    """A table.

    Args:
        align: a letter per column: ``l`` text, ``r`` numbers, ``c`` code, which may break anywhere.
        last_apart: whether the last row is of another sort than the rest.
    """
    kind = {"l": "", "r": ' class="number"', "c": ' class="code"'}
    head = "".join(f"<th{kind[letter]}>{escape(text)}</th>" for letter, text in zip(align, header, strict=True))
    body = []
    for place, row in enumerate(rows):
        cells = "".join(f"<td{kind[letter]}>{escape(text)}</td>" for letter, text in zip(align, row, strict=True))
        apart = ' class="last"' if last_apart and place == len(rows) - 1 else ""
        body.append(f"<tr{apart}>{cells}</tr>")
    return Html(
        f'<figure class="table"><div class="scroll"><table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n'
        + "\n".join(body)
        + f"\n</tbody>\n</table></div>\n<figcaption>{escape(caption)}</figcaption></figure>"
    )


def figure(png: bytes, alt: str, caption: str = "") -> Html:
    """A picture, within the page."""
    width, height = struct.unpack(">II", png[16:24])  # where every PNG has them
    text = f"\n<figcaption>{escape(caption)}</figcaption>" if caption else ""
    return Html(
        f'<figure><img alt="{escape(alt)}" width="{width // SHOWN_SCALE}" height="{height // SHOWN_SCALE}" '
        f'src="data:image/png;base64,{base64.b64encode(png).decode()}">{text}</figure>'
    )


def figures(pictures: Sequence[Html], size: str) -> Html:
    """Pictures side by side, as many as fit; ``size`` is large, medium or small."""
    return Html(f'<div class="figures {size}">\n' + "\n".join(pictures) + "\n</div>")


def details(summary: str, *blocks: Html) -> Html:
    """Closed until it is opened."""
    return Html(f"<details><summary>{escape(summary)}</summary>\n" + "\n".join(blocks) + "\n</details>")
