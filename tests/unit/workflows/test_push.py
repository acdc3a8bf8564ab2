"""Push an adapter: what is chosen, and what a hub on loopback receives."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from tiny_models import make_model
from typer.testing import CliRunner

from presafe.cli.main import app
from presafe.config.recipe import load_recipe
from presafe.errors import RunError
from presafe.stages.run_folder import RunFolder
from presafe.workflows.push import files_to_push, push

SECRET = "RESPONSE-OR-PROMPT"


class Hub(BaseHTTPRequestHandler):
    """Answers what `huggingface_hub` asks for a commit of small files."""

    received: dict[str, bytes]

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if "chunked" in self.headers.get("Transfer-Encoding", ""):
            body = b"".join(iter(self._chunk, b""))
        self.received[self.path] = body
        own = f"http://{self.headers['Host']}/me/mine"
        if self.path.endswith("/preupload/main"):
            names = [file["path"] for file in json.loads(body)["files"]]
            reply: Any = {"files": [{"path": n, "uploadMode": "regular", "shouldIgnore": False} for n in names]}
        elif "/commit/" in self.path:
            reply = {"commitUrl": f"{own}/commit/1", "commitOid": "1", "success": True, "hookOutput": ""}
        else:
            reply = {"url": own, "name": "me/mine"}
        self._send(reply)

    def do_GET(self) -> None:
        self._send({"id": "me/mine", "sha": "0" * 40, "siblings": [], "name": "me", "type": "user"})

    def _chunk(self) -> bytes:
        size = int(self.rfile.readline(), 16)
        data = self.rfile.read(size)
        self.rfile.readline()
        return data

    def _send(self, reply: Any) -> None:
        text = json.dumps(reply).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def hub() -> Iterator[tuple[str, dict[str, bytes]]]:
    """Serve a hub; return its address and what it receives."""
    received: dict[str, bytes] = {}
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("OwnHub", (Hub,), {"received": received}))
    Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", received
    server.shutdown()


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    """Make a run folder with a real adapter, a card, and responses that must stay."""
    from peft import LoraConfig, get_peft_model

    run = RunFolder.open_for(tmp_path / "run", load_recipe("smolthink-135m"))
    folder = run.path / "alignment" / "presafe"
    get_peft_model(make_model(), LoraConfig(target_modules=["q_proj"])).save_pretrained(str(folder / "adapter"))
    (folder / "adapter" / "README.md").write_text("---\nlibrary_name: peft\nlicense: other\n---\n# card\n")
    (folder / "adapter" / "notes.txt").write_text(SECRET)
    (folder / "presafe_head.safetensors").write_bytes(b"head")
    (run.path / "responses").mkdir()
    (run.path / "responses" / "own.eval").write_text(SECRET)
    return run


def test_a_dry_run_lists_weights_card_and_head_only(run: RunFolder) -> None:
    words = ["push", str(run.path), "me/mine", "--dry-run"]
    printed = CliRunner().invoke(app, words, catch_exceptions=False).stdout
    assert printed.startswith("would send to me/mine:\n")
    names = [line.split()[0] for line in printed.splitlines()[1:]]
    assert names == ["adapter_config.json", "adapter_model.safetensors", "README.md", "presafe_head.safetensors"]


def test_the_path_of_a_local_base_is_not_sent(run: RunFolder) -> None:
    config = run.path / "alignment" / "presafe" / "adapter" / "adapter_config.json"
    settings = json.loads(config.read_text())
    config.write_text(json.dumps(settings | {"base_model_name_or_path": "HuggingFaceTB/SmolLM2-135M"}))
    assert [file.text for file in files_to_push(run, "presafe")] == [None] * 4  # a hub id is sent as it is
    config.write_text(json.dumps(settings | {"base_model_name_or_path": "/home/me/models/own-3b"}))
    sent = files_to_push(run, "presafe")[0]
    assert json.loads(sent.text or "") == settings | {"base_model_name_or_path": "own-3b"}
    assert sent.num_bytes == len((sent.text or "").encode())
    assert json.loads(config.read_text())["base_model_name_or_path"] == "/home/me/models/own-3b"  # the run keeps it


def test_a_missing_card_or_system_is_an_error(run: RunFolder) -> None:
    (run.path / "alignment" / "presafe" / "adapter" / "README.md").unlink()
    with pytest.raises(RunError, match=r"README\.md is missing"):
        files_to_push(run, "presafe")
    with pytest.raises(RunError, match="trains no `system` 'star1'"):
        files_to_push(run, "star1")


@pytest.mark.parametrize("name", ["no-owner", "a/b/c", "me/ mine", "-me/mine", "me/..", ""])
def test_a_dry_run_refuses_what_is_no_name(run: RunFolder, name: str) -> None:
    done = CliRunner().invoke(app, ["push", "--dry-run", "--", str(run.path), name])
    assert isinstance(done.exception, RunError)


@pytest.mark.parametrize("metadata", ["", "a: 1", "a: b: c", "- a", "license: [", "eval_results: 7\nmodel-index: 7"])
def test_a_card_that_the_hub_cannot_read_is_one_line(run: RunFolder, metadata: str) -> None:
    (run.path / "alignment" / "presafe" / "adapter" / "README.md").write_text(f"---\n{metadata}\n---\n# card\n")
    with pytest.raises(RunError, match=r"README\.md has metadata that the hub cannot read"):
        files_to_push(run, "presafe")


@pytest.mark.parametrize("more", ["base_model: 'not a name!!'", "datasets:\n- /home/bob/secret", "datasets: ../rows"])
def test_a_card_with_a_path_is_not_sent(run: RunFolder, more: str) -> None:
    card = f"---\nlibrary_name: peft\nlicense: other\n{more}\n---\n# card\n"
    (run.path / "alignment" / "presafe" / "adapter" / "README.md").write_text(card)
    with pytest.raises(RunError, match=r"README\.md: .* is no name of a repository"):
        files_to_push(run, "presafe")


def test_a_newer_card_beside_it_is_an_error(run: RunFolder) -> None:
    (run.path / "alignment" / "presafe" / "adapter" / "README.new.md").write_text("# newer\n")
    with pytest.raises(RunError, match=r"README\.new\.md lies beside README\.md"):
        files_to_push(run, "presafe")


def test_the_hub_receives_these_files_and_nothing_else(
    run: RunFolder, hub: tuple[str, dict[str, bytes]], monkeypatch: pytest.MonkeyPatch
) -> None:
    address, received = hub
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", address)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.hf_api.constants.ENDPOINT", address)
    monkeypatch.setenv("HF_TOKEN", "hf_test")
    assert push(files_to_push(run, "presafe"), "me/mine") == f"{address}/me/mine/commit/1"
    assert json.loads(received["/api/repos/create"])["visibility"] == "private"
    lines = [json.loads(line) for line in received["/api/models/me/mine/commit/main"].splitlines()]
    added = [line["value"] for line in lines if line["key"] == "file"]
    sent = {file["path"]: base64.b64decode(file["content"]) for file in added}
    assert sent == {file.name: file.path.read_bytes() for file in files_to_push(run, "presafe")}
    assert not any(SECRET.encode() in content for content in (*sent.values(), *received.values()))


def test_a_hub_that_cannot_be_reached_is_one_line(run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(RunError, match="cannot push to me/mine"):
        push(files_to_push(run, "presafe"), "me/mine")
