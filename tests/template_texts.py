"""The text of a plain template, as JSON, for tests that change it."""

import json
from typing import Any

from pipeline.parameter_graph import GraphTemplate
from pipeline.template_document import write_document
from tiny_networks import traced

Document = dict[str, Any]


BASE = "conv relu conv pool flatten linear"


def plain() -> GraphTemplate:
    return traced(BASE)[1]


def base() -> Document:
    return json.loads(write_document(plain()))


def text_of(document: Any) -> str:
    return json.dumps(document, sort_keys=True, separators=(",", ":"))
