"""Answer the rows of a file on Apache Beam, twice: the second command finds that all is done.

Needs Apache Beam: ``pip install "tf-pipeline[beam]"``.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

with tempfile.TemporaryDirectory() as folder:
    rows, answers = Path(folder, "rows.jsonl"), Path(folder, "answers")
    texts = [f"Film {place} was {'good' if place % 2 else 'bad'}." for place in range(20)]
    rows.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts) + '{"no": "text"}\n')
    command = [sys.executable, "-m", "tf_pipeline.cli", "batch", "text-classification", str(rows), str(answers)]
    first = subprocess.run([*command, "--chunk-rows", "8"], capture_output=True, text=True)
    print(first.stdout or first.stderr)
    assert first.returncode == 3, "one row has no text"
    parts = sorted((answers / "answers").iterdir())
    results = [json.loads(line) for part in parts for line in part.read_text().splitlines()]
    failed = [json.loads(line) for part in sorted((answers / "errors").iterdir()) for line in part.open()]
    again = subprocess.run([*command, "--chunk-rows", "8"], capture_output=True, text=True)
    print(again.stderr.strip().splitlines()[-1])

print(results[0])
print(failed)
assert [result["row"] for result in results] == list(range(1, 21)) and failed[0]["row"] == 21
assert again.returncode == 1
