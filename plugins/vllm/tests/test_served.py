"""What is served is compared with the gate file before the first request."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from gate_cases import write_gate
from presafe_vllm.gating.gate_file import GateError
from presafe_vllm.served import served_modes
from presafe_vllm.settings import settings_from


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


class Server:
    """A folder with an adapter, merged weights, and vLLM's state of a server of both."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder, self.adapter, self.merged = folder, folder / "adapter", folder / "merged"
        for path in (self.adapter, self.merged, folder / "run"):
            path.mkdir()
        (self.adapter / "adapter_config.json").write_bytes(b"{}")
        (self.merged / "model.safetensors").write_bytes(b"weights")
        self.hashes = {"adapter_config.json": sha256(b"{}")}
        self.record(self.hashes)
        (folder / "run" / "1.ready").touch()
        monkeypatch.setenv("PRESAFE_GATE_RUN", str(folder / "run"))
        self.servers: int | None = 1

    def record(self, adapter: dict[str, str]) -> None:
        record = {"adapter_sha256": adapter, "weights_sha256": {"model.safetensors": sha256(b"weights")}}
        (self.merged / "presafe_export.json").write_text(json.dumps(record))

    def modes(self, models: str) -> dict[str, Any]:
        gate = write_gate(self.folder, adapter_sha256=self.hashes)
        served = SimpleNamespace(
            base_model_paths=[SimpleNamespace(name="base", model_path=str(self.merged))],
            lora_requests={"own": SimpleNamespace(lora_path=str(self.adapter))},
        )
        state = SimpleNamespace(args=SimpleNamespace(api_server_count=self.servers), openai_serving_models=served)
        return dict(served_modes(state, settings_from(gate, {"PRESAFE_GATE_MODELS": models})))


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Server:
    return Server(tmp_path, monkeypatch)


def test_what_has_the_gate_files_weights_is_monitored(server: Server) -> None:
    assert server.modes("") == {"base": "monitor", "own": "monitor"}
    (server.adapter / "adapter_config.json").write_bytes(b'{"lora_alpha": 1}')
    assert server.modes("") == {"base": "monitor"}
    server.record({"adapter_config.json": "1" * 64})
    with pytest.raises(GateError, match=r"no served name has .* merged from another adapter.* another sha256"):
        server.modes("")


def test_named_models_are_compared(server: Server) -> None:
    assert server.modes("own=gate") == {"own": "gate"}  # the base's own name is closed
    with pytest.raises(GateError, match="names 'other', and vLLM serves base, own"):
        server.modes("other=monitor")
    (server.merged / "model.safetensors").write_bytes(b"changed")
    assert server.modes("own=gate,base=open") == {"own": "gate", "base": "open"}
    with pytest.raises(GateError, match=r"'base' cannot be read by this head.*another sha256"):
        server.modes("base=gate")
    (server.merged / "more.safetensors").touch()
    with pytest.raises(GateError, match="other files of weights"):
        server.modes("base=monitor")
    (server.merged / "presafe_export.json").unlink()
    with pytest.raises(GateError, match="neither an adapter nor merged weights"):
        server.modes("base=monitor")


def test_a_gate_that_does_not_run_is_refused(server: Server) -> None:
    server.servers = 2
    with pytest.raises(GateError, match="--api-server-count 1"):
        server.modes("own=gate")
    (server.folder / "run" / "1.ready").unlink()
    with pytest.raises(GateError, match="does not run in vLLM's workers"):
        server.modes("own=gate")
