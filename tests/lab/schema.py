"""Hold a document to a published JSON Schema, stricter than a reader has to be."""

from __future__ import annotations

from typing import Any

import jsonschema

from otgd.cli.schema import SCHEMAS


def check(document: object, name: str) -> None:
    """Fail unless *document* keeps to the schema and has no key that the schema does not tell."""
    validator = jsonschema.Draft202012Validator(
        _closed(SCHEMAS[name]), format_checker=jsonschema.FormatChecker()
    )
    validator.validate(document)


def _closed(schema: Any) -> Any:  # noqa: ANN401 - JSON
    if isinstance(schema, list):
        return [_closed(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    closed = {key: _closed(value) for key, value in schema.items()}
    return closed | {"additionalProperties": False} if "properties" in schema else closed
