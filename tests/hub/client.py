"""The real huggingface_hub in a new process, requests without it, and a small model to send."""

import json
import subprocess
from collections.abc import Callable
from contextlib import closing
from email.message import Message
from http.client import HTTPConnection
from typing import Any
from urllib.parse import urlsplit

Run = Callable[..., subprocess.CompletedProcess[str]]
WEIGHTS = bytes(range(256)) * 8192  # 2 MiB
MODEL = {
    "model.safetensors": WEIGHTS,
    "onnx/model.onnx": WEIGHTS[::-1],
    "config.json": b'{"a": 1}',
    "README.md": b"---\nlicense: mit\n---\n# A model\n",
    "an empty file.bin": b"",
}
CLIENT = """
import json
from pathlib import Path
from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, constants
api = HfApi()
def add(files):
    return [CommitOperationAdd(path, content) for path, content in files.items()]
def failure(call, *arguments, **keywords):
    try:
        call(*arguments, **keywords)
    except Exception as error:
        response = getattr(error, "response", None)
        return [type(error).__name__, response is not None and response.status_code]
"""


def client(run: Run, statements: str, **keywords: str | None) -> Any:
    """The value of `result` after the statements, in a process that `run` starts, passed on as JSON."""
    done = run(f"{CLIENT}\n{statements}\nprint(json.dumps(result))", **keywords)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def ask(url: str, method: str = "GET", timeout: float = 10, **request: Any) -> tuple[int, Message, bytes]:
    """The status, headers and body of an answer, without the client's retries."""
    with closing(HTTPConnection(urlsplit(url).netloc, timeout=timeout)) as connection:
        connection.request(method, urlsplit(url).path, **request)
        response = connection.getresponse()
        return response.status, response.headers, response.read()
