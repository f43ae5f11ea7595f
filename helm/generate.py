"""Generate the files that follow from others, so that no fact is written twice by hand.

    python helm/generate.py            write
    python helm/generate.py --check    write nothing; fail if a file is out of date

`helm/autotuner/README.md`: the tables of values, from the `# --` comments of values.yaml, and of settings,
from `autotuner.controller.settings`. `helm/autotuner/values.schema.json`: its `config`, from the same model.
`deploy/*.yaml`: the rendered chart, for users without Helm. Helm must be on the PATH, or named by $HELM.
"""
# ruff: noqa: INP001 (a script, not a package)

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[1]
CHART = ROOT / "helm" / "autotuner"
sys.path.insert(0, str(ROOT))

from autotuner.controller.settings import ControllerSettings, settings

DERIVED = (
    "config_file",
    "namespaces",
    "kinds",
    "leader_election",
    "lease_name",
    "lease_namespace",
    "http_port",
    "pages_host",
    "pages_port",
    "pages_hosts",
)
"""Settings that the chart derives from other values."""

NAMESPACE = "autotuner-system"
MANIFESTS = {"autotuner.yaml": [], "autotuner-namespaced.yaml": ["--set=namespaces={default}"]}
"""Plain manifests under deploy/, with the arguments that each is rendered with."""

_OF_HELM = re.compile(r"\n +(helm\.sh/chart|app\.kubernetes\.io/managed-by): [^\n]*")


def main() -> int:
    """Write every file, or list the stale ones."""
    stale = [path for path, text in files().items() if not path.exists() or path.read_text() != text]
    for path in stale:
        if "--check" not in sys.argv:
            path.write_text(files()[path])
        sys.stdout.write(f"{path.relative_to(ROOT)}\n")
    return int(bool(stale) and "--check" in sys.argv)


def files() -> dict[Path, str]:
    """Return every generated file with its text."""
    readme, schema = CHART / "README.md", CHART / "values.schema.json"
    return {
        readme: _between_marks(
            _between_marks(readme.read_text(), "values", values_table()), "settings", settings_table()
        ),
        schema: with_settings(schema.read_text()),
        **{ROOT / "deploy" / name: plain_manifests(options) for name, options in MANIFESTS.items()},
    }


def values_table() -> str:
    """Return the table of the chart's values.

    Raises:
        ValueError: a value has no comment, or a comment no value.
    """
    text = (CHART / "values.yaml").read_text()
    meanings = dict(_commented(text))
    values = yaml.safe_load(text)
    lines = ["| Value | Default | Meaning |", "|---|---|---|"]
    for path, meaning in meanings.items():
        default: Any = values
        for part in path.split("."):
            default = default[part]
        shown = json.dumps(default).replace("|", "\\|")
        lines.append(f"| `{path}` | `{shown}` | {meaning} |")
    silent = {
        path for path in _leaves(values) if not any(path == m or path.startswith(f"{m}.") for m in meanings)
    }
    if silent:
        raise ValueError(
            f"values.yaml says nothing about {', '.join(sorted(silent))}: write a '# --' comment above"
        )
    return "\n".join(lines)


def settings_table() -> str:
    """Return the table of the settings that `config` takes."""
    rows = [s for s in settings() if s.name not in DERIVED]
    return "\n".join(
        [
            "| Setting | Environment | Default | Meaning |",
            "|---|---|---|---|",
            *(f"| `{s.name}` | `{s.environment}` | `{s.default}` | {s.meaning} |" for s in rows),
        ]
    )


def with_settings(schema: str) -> str:
    """Return the schema of the values, with the schema of the settings for `config`."""
    content = json.loads(schema)
    model = ControllerSettings.model_json_schema()
    properties = {name: prop for name, prop in model["properties"].items() if name not in DERIVED}
    content["properties"]["config"] = {
        "type": "object",
        "additionalProperties": False,
        "properties": properties,
    }
    return json.dumps(content, indent=2) + "\n"


def plain_manifests(options: list[str]) -> str:
    """Return the rendered chart, its namespace first, without Helm's own labels."""
    helm = os.environ.get("HELM", "helm")
    command = [
        helm,
        "template",
        "autotuner",
        str(CHART),
        "--namespace",
        NAMESPACE,
        "--set=test.enabled=false",
        *options,
    ]
    rendered = subprocess.run(command, check=True, capture_output=True, text=True).stdout  # noqa: S603
    namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}
    namespace["metadata"]["labels"] = {"pod-security.kubernetes.io/enforce": "restricted"}
    head = "# Rendered from helm/autotuner by helm/generate.py: change that, not this.\n"
    return head + yaml.safe_dump(namespace) + _OF_HELM.sub("", rendered).rstrip() + "\n"


def _commented(text: str) -> Iterator[tuple[str, str]]:
    """Yield path and meaning of each value that has a `# --` comment above it."""
    parents: list[tuple[int, str]] = []
    meaning: list[str] = []
    for line in text.splitlines():
        if comment := re.match(r"\s*# (-- )?(.*)", line):
            if comment[1] or meaning:
                meaning.append(comment[2])
        elif key := re.match(r"( *)([A-Za-z]\w*):", line):
            depth = len(key[1])
            parents = [*(p for p in parents if p[0] < depth), (depth, key[2])]
            if meaning:
                yield ".".join(name for _, name in parents), " ".join(meaning)
            meaning = []


def _leaves(values: dict[str, Any], prefix: str = "") -> Iterator[str]:
    for key, value in values.items():
        if isinstance(value, dict) and value:
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}"


def _between_marks(text: str, mark: str, content: str) -> str:
    before, after = f"<!-- {mark}: generated -->", f"<!-- {mark}: end -->"
    head, rest = text.split(before)
    return f"{head}{before}\n{content}\n{after}{rest.split(after)[1]}"


if __name__ == "__main__":
    sys.exit(main())
