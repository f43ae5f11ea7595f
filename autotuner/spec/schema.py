"""The annotations as a table for people, and as a JSON schema."""

from __future__ import annotations

import re
from typing import Any

from autotuner import keys
from autotuner.spec.tuning_spec import MAX_ANNOTATION, annotation_fields, default_text_of, example_of


def annotation_table() -> list[dict[str, str]]:
    """Return the annotations as rows of key, meaning, default and example."""
    return [
        {
            "key": key,
            "meaning": field.description or "",
            "default": default_text_of(field),
            "example": example_of(field),
        }
        for key, field in annotation_fields()
    ]


def annotation_schema() -> dict[str, Any]:
    """Return a JSON schema (draft 2020-12) of a job's annotations, which are strings."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Annotations of a job that the autotuner tunes",
        "type": "object",
        "properties": {
            key: {
                "type": "string",
                "maxLength": MAX_ANNOTATION,
                "description": f"{field.description}; default: {default_text_of(field)}",
                "examples": [example_of(field).strip("'")],
            }
            for key, field in annotation_fields()
        },
        "required": [key for key, field in annotation_fields() if field.is_required()],
        # Annotations without our prefix are allowed; an unknown one with it is not.
        "patternProperties": {f"^(?!{re.escape(keys.PREFIX)})": {}},
        "additionalProperties": False,
    }
