"""Where a run samples, if not in this process: at running servers, or at a vLLM that is started for the weights.

At running servers an aligned system is loaded by name, and unloaded when another one is asked or the work ends. A vLLM
that is started serves one model at a time, an aligned system as merged weights: the same as in this process. It is
started when the first answer is asked, kept for all that asks the same weights, and ended with `close`. A judge whose
weights are on this machine is asked once that one has ended: in a vLLM of its own, or in this process.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

from presafe.config.engine import EngineSettings, is_served
from presafe.config.recipe import ModelSettings
from presafe.models.address import SMOLTHINK, Served, need_weights, pretrained, raw_server
from presafe.models.control import adapter_name, load_adapter, unload_adapter
from presafe.models.likeness import Chances, chances_at, need_alike, need_same_as_here, need_tokenizer
from presafe.models.loading import load_model, load_renderer, release_model, shared_model
from presafe.models.provider import PROVIDER, judge_asked_at
from presafe.models.rendering import Renderer
from presafe.models.saving import save_model, whole_folder
from presafe.models.served import ServedEngine
from presafe.models.side_by_side import ManyServers, Server
from presafe.models.vllm import StartedServer, Weights

LOG = "vllm.log"
"""Name of the log of a vLLM that is started, in the folder of the run."""
_WEIGHTS = "vllm-weights"
"""Folder of merged weights while they are served."""


class Asked(NamedTuple):
    """The weights that are sampled."""

    model: ModelSettings
    adapter: Path | None

    def renderer(self) -> Renderer:
        """Return the model's tokenizer and family."""
        model = self.model
        return load_renderer(model.address, model.family, trust_remote_code=model.trust_remote_code)


def judge_at_vllm(judges: Sequence[str]) -> str | None:
    """Return the address of the judge's model for which a vLLM is started; None if judges are asked in this process.

    Args:
        judges: Inspect addresses of the judges' models whose weights are on this machine.
    """
    is_one_of_ours = len(judges) == 1 and judges[0].startswith(PROVIDER)
    return judges[0].removeprefix(PROVIDER) if is_one_of_ours else None


class Place:
    """Where the models of a run or a measurement are sampled. A context: at its end it lets everything go.

    Args:
        settings: The servers, or the environment with vLLM.
        base: The model that the servers hold.
        folder: Folder of the run or measurement, for logs and merged weights.
        has_weights: Whether the base's weights are used in this process, too: then the servers are compared with them.

    Raises:
        ModelError: the base is itself served, or an address is malformed.
    """

    def __init__(self, settings: EngineSettings, base: ModelSettings, folder: Path, *, has_weights: bool) -> None:
        need_weights(base.address, "`engine`", "Name the model by its hub id or folder, and its servers with `engine`.")
        self._settings, self._base, self._folder, self._has_weights = settings, base, folder, has_weights
        self._servers = [raw_server(address) for address in settings.servers]
        self._loaded: set[Served] = set()
        self._started: tuple[Asked, StartedServer] | None = None

    def __enter__(self) -> Self:
        """Return this place."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """Let everything go."""
        self.close()

    def engine_for(self, model: ModelSettings, adapter: Path | None, batch_size: int) -> ManyServers | None:
        """Return what samples a model here; None if this place does not have it, such as another model as teacher.

        Args:
            model: The model.
            adapter: Folder of an adapter on it, or None.
            batch_size: Largest number of requests in flight at each server.
        """
        asked = Asked(model, adapter)
        if self._settings.vllm:
            if is_served(model.address):
                return None
            return ManyServers(partial(self._start, asked), lambda engine: None, batch_size)
        if model != self._base:
            return None
        return ManyServers(partial(self._connect, asked), self._checks(asked), batch_size)

    @property
    def starts_vllm(self) -> bool:
        """Return whether a vLLM is started here for each model."""
        return self._settings.vllm is not None

    @contextmanager
    def judging(self, judges: Sequence[str], batch_size: int) -> Iterator[None]:
        """End the vLLM of the tested model, so that judges have its memory; one judge is asked at a vLLM of its own.

        Args:
            judges: Inspect addresses of the judges' models. Several, or one that is not of this package's provider, are
                asked in this process.
            batch_size: Largest number of requests in flight.

        Raises:
            ModelError: vLLM does not start.
        """
        address = judge_at_vllm(judges)
        if address is None:
            self.close()
            yield
            return
        asked = Asked(ModelSettings(address=address), None)
        engine = ManyServers(partial(self._start, asked), lambda engine: None, batch_size)
        engine.ready()
        with judge_asked_at(address, engine):
            yield

    def close(self) -> None:
        """Unload adapters, and end the server that was started."""
        while self._loaded:
            unload_adapter(self._loaded.pop())
        if self._started is not None:
            (_, server), self._started = self._started, None
            server.close()
        shutil.rmtree(self._folder / _WEIGHTS, ignore_errors=True)

    def _connect(self, asked: Asked) -> list[Server]:
        """Return the running servers under the name of the weights; other adapters are unloaded."""
        name = adapter_name(asked.adapter) if asked.adapter else None
        if any(adapted.name != name for adapted in self._loaded):
            self.close()
        named = [served._replace(name=name or served.name) for served in self._servers]
        return [
            Server(ServedEngine(own, asked.renderer, 1, with_ids=True), partial(self._load, served, asked.adapter))
            for served, own in zip(self._servers, named, strict=True)
        ]

    def _load(self, served: Served, adapter: Path | None) -> None:
        """Have a server load an adapter, if there is one, and remember it."""
        if adapter is not None:
            self._loaded.add(load_adapter(served, adapter))

    def _checks(self, asked: Asked) -> Callable[[ServedEngine], None]:
        """Return the check of each server: with the weights in this process or, without any, with the first server."""
        first: list[tuple[str, Chances]] = []

        def check(engine: ServedEngine) -> None:
            need_tokenizer(engine)
            if self._has_weights:
                model, adapter = asked.model, asked.adapter.resolve() if asked.adapter else None
                here = shared_model(model.address, adapter, model.family, model.dtype, model.trust_remote_code)
                need_same_as_here(engine, here)
            elif len(self._servers) > 1:
                first.append((engine.served.url, chances_at(engine)))
                need_alike(engine.served.url, first[-1][1], first[0][1], first[0][0])

        return check

    def _start(self, asked: Asked) -> list[Server]:
        """Return the server of the weights, which is started if it does not run."""
        if self._started is None or self._started[0] != asked or self._started[1].problem():
            self.close()
            release_model()  # its memory is the server's now
            self._started = (asked, StartedServer(self._settings, self._weights(asked), self._folder / LOG))
        server = self._started[1]
        return [Server(ServedEngine(server.served, asked.renderer, 1, with_ids=True), problem=server.problem)]

    def _weights(self, asked: Asked) -> Weights:
        """Return what vLLM loads: the model as it is, or a folder with the adapter merged.

        Raises:
            RunError: the folder cannot be written.
        """
        model, adapter = asked
        source = pretrained(model.address)
        if adapter is None and model.address != SMOLTHINK and "gguf_file" not in source:
            name = source["pretrained_model_name_or_path"]
            return Weights(
                str(Path(name).absolute()) if Path(name).is_dir() else name, model.dtype, model.trust_remote_code
            )
        folder = (self._folder / _WEIGHTS).absolute()
        loaded = load_model(
            model.address,
            adapter=adapter,
            family=model.family,
            dtype=model.dtype,
            trust_remote_code=model.trust_remote_code,
        )
        with whole_folder(folder) as part:
            save_model(loaded, part)
        del loaded
        release_model()
        return Weights(str(folder), model.dtype, model.trust_remote_code)


def placed(
    settings: EngineSettings | None, base: ModelSettings, folder: Path, *, has_weights: bool
) -> AbstractContextManager[Place | None]:
    """Return a place as a context, or a context of None if all is sampled in this process.

    Args:
        settings: As `Place`, as are the others.
        base: See there.
        folder: See there.
        has_weights: See there.

    Raises:
        ModelError: as `Place`.
    """
    return Place(settings, base, folder, has_weights=has_weights) if settings else nullcontext()
