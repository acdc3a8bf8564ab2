"""An environment with a stand-in of vLLM: a program of the same name, command line and routes, without a model.

`make test-vllm` has the real one. The stand-in writes to its log as vLLM does, starts a worker in a process of its own,
and answers every prompt with one text. Variables of its environment make it misbehave:

STAND_IN_FAULT   refuses: it ends with an error before it is healthy; dies: it ends when it is first asked for more than
                 one token; slow: it is never healthy
STAND_IN_FAULTY  the fault is of a model with this in its address alone
"""

from __future__ import annotations

import venv
from pathlib import Path

_MODULE = """
import argparse, json, os, signal, subprocess, sys, threading, time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

parser = argparse.ArgumentParser()
for flag in ("--model", "--served-model-name", "--host", "--dtype", "--max-model-len", "--tensor-parallel-size"):
    parser.add_argument(flag)
parser.add_argument("--port", type=int)
options = parser.parse_args()
fault = os.environ.get("STAND_IN_FAULT") if os.environ.get("STAND_IN_FAULTY", "") in options.model else None
if os.path.isabs(options.model) and not os.path.isfile(os.path.join(options.model, "config.json")):
    sys.exit(f"OSError: no config.json in {options.model}")
print("INFO starting", " ".join(sys.argv[1:]), flush=True)
waits = "import signal, time; signal.signal(15, signal.SIG_IGN); time.sleep(600)"
worker = subprocess.Popen([sys.executable, "-c", waits])
print("worker", worker.pid, flush=True)
if fault == "refuses":
    worker.kill()
    print("Traceback (most recent call last):")
    sys.exit("ValueError: To serve at least one request with the models's max seq len (131072), 7 GiB is needed")


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        if self.path == "/health":
            self.send(503 if fault == "slow" else 200, {})
        else:
            self.send(200, {"data": [{"id": options.served_model_name}]})

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if fault == "dies" and body["max_tokens"] > 1:
            os.write(1, b"torch.OutOfMemoryError: tried to allocate 2.00 GiB\\n")  # whole, beside other threads
            os._exit(3)
        usage = {"prompt_tokens": len(body["prompt"]), "completion_tokens": 3}
        text = "so\\n</think>\\n\\nI can't help with that."
        self.send(200, {"choices": [{"text": text, "finish_reason": "stop"}], "usage": usage})

    def send(self, status, body):
        content = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_):
        pass


ThreadingHTTPServer((options.host, options.port), Handler).serve_forever()
"""


def make_environment(folder: Path, version: str = "0.32.0") -> Path:
    """Write the environment and return its folder.

    Args:
        folder: Where to write it.
        version: What its package says.
    """
    venv.create(folder, with_pip=False, symlinks=True)
    (packages,) = folder.glob("lib/python*/site-packages")
    module = packages / "vllm" / "entrypoints" / "openai"
    module.mkdir(parents=True)
    for part in (module, module.parent, module.parent.parent):
        (part / "__init__.py").touch()
    (module / "api_server.py").write_text(_MODULE)
    (packages / f"vllm-{version}.dist-info").mkdir()
    (packages / f"vllm-{version}.dist-info" / "METADATA").write_text(f"Name: vllm\nVersion: {version}\n")
    return folder
