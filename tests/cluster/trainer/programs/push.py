"""Push a metric to Trainer's status server as Hugging Face Transformers does, then end."""

import json
import os
import ssl
import sys
import urllib.error
import urllib.request
from datetime import UTC, datetime
from pathlib import Path

URL = os.environ["KUBEFLOW_TRAINER_SERVER_URL"]
TOKEN = Path(os.environ["KUBEFLOW_TRAINER_SERVER_TOKEN"])
AUTHORITY = os.environ["KUBEFLOW_TRAINER_SERVER_CA_CERT"]


def push(url: str, token: str, metrics: dict[str, float]) -> int:
    status = {
        "metrics": [{"name": name, "value": str(value)} for name, value in metrics.items()],
        "progressPercentage": 50,
        "lastUpdatedTime": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
    }
    request = urllib.request.Request(
        url,
        data=json.dumps({"trainerStatus": status}).encode(),
        headers={"Authorization": f"Bearer {token}", "Content-Type": "application/json"},
        method="POST",
    )
    context = ssl.create_default_context(cafile=AUTHORITY)
    try:
        with urllib.request.urlopen(request, context=context) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        return error.code


url = URL if len(sys.argv) == 1 else URL.replace(os.environ["OWN_NAME"], sys.argv[1])
sys.stdout.write(f"status={push(url, TOKEN.read_text(), {'accuracy': 0.75, 'step': 3})}\n")
