"""Print one value of a metric, and push another one to Trainer's status server."""

import json
import os
import ssl
import sys
import urllib.request
from datetime import UTC, datetime
from pathlib import Path

sys.stdout.write("val_accuracy=0.5 epoch=1\n")
metrics = [{"name": "val_accuracy", "value": "0.95"}, {"name": "epoch", "value": "1"}]
status = {"metrics": metrics, "lastUpdatedTime": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")}
token = Path(os.environ["KUBEFLOW_TRAINER_SERVER_TOKEN"]).read_text()
request = urllib.request.Request(
    os.environ["KUBEFLOW_TRAINER_SERVER_URL"],
    data=json.dumps({"trainerStatus": status}).encode(),
    headers={"Authorization": f"Bearer {token}", "Content-Type": "application/json"},
    method="POST",
)
context = ssl.create_default_context(cafile=os.environ["KUBEFLOW_TRAINER_SERVER_CA_CERT"])
with urllib.request.urlopen(request, context=context) as answer:
    sys.stdout.write(f"status={answer.status}\n")
