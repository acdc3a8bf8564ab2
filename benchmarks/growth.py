"""How time and memory of each stage grow with the number of prompts, each stage and size in a process of its own.

    python benchmarks/growth.py respond 1000       seconds and MiB, as JSON

The model behind a stage is a stub, so that what is measured is PreSafe and Inspect themselves: rendering, queues, logs,
judges, rows, metrics, pages. The stub answers at once with a fixed text; the classifier has one layer of width 32.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from unittest.mock import patch

from sides import Sizes, peak_memory, say

SIZES = (100, 1_000, 10_000)
BROWSERS = ("chromium", "chromium-browser", "google-chrome")


def measure(sizes: Sizes) -> dict[str, Any]:
    """Return seconds and memory by stage, one value per size, and the seconds in which a browser opens the report."""
    numbers = list(SIZES[: sizes.pick(3, 1)])
    stages: dict[str, dict[str, list[float]]] = {}
    for stage in STAGES:
        # Inspect takes some 20 ms per sample, so 10,000 of them do not fit into the twelve minutes.
        asked = [number for number in numbers if sizes.long or stage != "respond" or number <= 1_000]
        say(f"growth of {stage}: {', '.join(map(str, asked))} prompts")
        for number in asked:
            for name, value in (run(stage, number) if sizes.quick else _run_alone(stage, number)).items():
                stages.setdefault(stage, {}).setdefault(name, []).append(value)
    return {"prompts": numbers, "stages": stages, "browser": open_report(numbers[-1])}


def _run_alone(stage: str, number: int) -> dict[str, float]:
    """Run a stage in a process of its own; see `run`."""
    command = [sys.executable, __file__, stage, str(number)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    growth: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return growth


def texts_of(number: int) -> list[str]:
    """Return different short texts."""
    return [f"Tell me something about stone number {index}." for index in range(number)]


def prompts_of(number: int) -> list[Any]:
    """Return prompts, half of them to refuse."""
    from presafe.records import Prompt

    return [
        Prompt(
            id=f"p{index}",
            text=text,
            category="stones",
            split="held_out",
            license="MIT",
            expect="refuse" if index % 2 else "comply",
        )
        for index, text in enumerate(texts_of(number))
    ]


def responses_of(number: int) -> list[Any]:
    """Return a response to each prompt."""
    from presafe.records import Response

    return [
        Response(
            prompt_id=f"p{index}",
            thinking="on",
            thought="I think about stones.",
            answer="Stones are hard.",
            truncated=False,
            complete=True,
            num_tokens=12,
            verdict="comply",
        )
        for index in range(number)
    ]


def respond(number: int, folder: Path) -> Callable[[], object]:
    """Sample through Inspect: tasks, logs, the judge of refusals, reading the logs back."""
    from presafe.config.recipe import ModelSettings
    from presafe.judges.scorers import refusal_strings
    from presafe.models.batching import LocalEngine
    from presafe.models.exchange import Completion, Request
    from presafe.models.loading import load_renderer
    from presafe.models.sampling import Sampler, sample_responses

    async def complete(self: LocalEngine, request: Request) -> Completion:
        self.on_finished(1)
        return Completion("I think about stones.\n</think>\n\nStones are hard.<|im_end|>", 12, True)

    model = ModelSettings(address="smolthink")
    sampler = Sampler(model, "on", None, batch_size=64, batch_tokens=65_536, max_tokens=64, seed=0)
    prompts, renderer = prompts_of(number), load_renderer("smolthink")
    stub: dict[str, Any] = {"complete": complete, "ready": lambda self: renderer, "context": lambda self: None}

    def work() -> None:
        with patch.multiple(LocalEngine, **stub):
            sample_responses("stub", {"own": prompts}, {"own": [refusal_strings()]}, sampler, folder)

    return work


def signal(number: int, folder: Path) -> Callable[[], object]:
    """Train the classifier for one epoch, and score each query."""
    from transformers import BertConfig, BertModel, BertTokenizerFast

    from presafe.config.recipe import SignalSettings
    from presafe.signals.classifier import Classifier, train_classifier

    words = sorted({word for text in texts_of(number) for word in re.findall(r"\w+|\.", text.lower())})
    vocabulary = folder / "vocab.txt"
    folder.mkdir(parents=True, exist_ok=True)
    vocabulary.write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *words]), encoding="utf-8")
    encoder = folder / "encoder"
    BertTokenizerFast(str(vocabulary)).save_pretrained(encoder)
    config = BertConfig(
        vocab_size=len(words) + 5,
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=64,
    )
    BertModel(config).save_pretrained(encoder)
    settings = SignalSettings(encoder=str(encoder), epochs=1, batch_size=64, save_steps=10_000)

    def work() -> None:
        train_classifier(texts_of(number), [bool(i % 2) for i in range(number)], settings, folder / "classifier")
        Classifier(folder / "classifier", settings).probabilities(texts_of(number))

    return work


def align(number: int, folder: Path) -> Callable[[], object]:
    """Build the rows that a system is trained on; the steps of a training do not depend on the number of prompts."""
    from presafe.alignment.rows import alignment_rows
    from presafe.models.loading import load_renderer
    from presafe.records import Signal

    renderer, prompts = load_renderer("smolthink"), prompts_of(number)
    responses = {response.prompt_id: response for response in responses_of(number)}
    signals = {prompt.id: Signal(prompt_id=prompt.id, probability=prompt.expect == "refuse") for prompt in prompts}
    return lambda: alignment_rows(prompts, responses, signals, renderer, "direct")


def evaluate(number: int, folder: Path) -> Callable[[], object]:
    """Compute the rates of a suite, the AUROC at the decision position, and their intervals."""
    from presafe.evaluation.metrics import suite_scores
    from presafe.evaluation.positions import position_scores

    responses, positions = responses_of(number), positions_of(number)

    def work() -> None:
        suite_scores(responses, "comply", system="stub", thinking="on", suite="own", seed=None, judge="refusal_strings")
        position_scores(positions)

    return work


def positions_of(number: int) -> list[Any]:
    """Return the decision scores of prompts, in a fixed mixed order."""
    from presafe.records import PositionScore

    return [
        PositionScore(
            system="stub",
            seed=None,
            prompt_id=prompt.id,
            suite="own_" + prompt.expect,
            expect=prompt.expect,
            refusal_logit=(index * 7919 % 1000) / 100 - 5 + 2 * (prompt.expect == "refuse"),
            head_probability=None,
        )
        for index, prompt in enumerate(prompts_of(number))
    ]


def report(number: int, folder: Path) -> Callable[[], object]:
    """Write a report with one example per prompt, and a point of each in the figure of decision positions."""
    from presafe.report.data import Example, ReportData
    from presafe.report.page import write_report
    from presafe.runs.manifest import build_manifest

    examples = [
        Example(
            system="vanilla",
            thinking="on",
            suite="own_" + prompt.expect,
            prompt_id=prompt.id,
            expect=prompt.expect,
            text=prompt.text,
            thought=response.thought,
            answer=response.answer,
            verdict=response.verdict,
            offensive=False,
        )
        for prompt, response in zip(prompts_of(number), responses_of(number), strict=True)
    ]
    data = ReportData(
        title="growth",
        recipe={"name": "growth"},
        manifest=build_manifest({}, ""),
        timings_s={},
        positions=tuple(positions_of(number)),
        examples=tuple(examples),
    )
    return lambda: write_report(data, folder)


STAGES: dict[str, Callable[[int, Path], Callable[[], object]]] = {
    "align": align,
    "evaluate": evaluate,
    "report": report,
    "signal": signal,
    "respond": respond,
}


def open_report(number: int) -> dict[str, float] | None:
    """Return the seconds in which headless Chromium opens a report with this many prompts; None without a browser."""
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        say("no browser on the PATH: not measured in which time a report opens")
        return None
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        report(number, folder)()
        page = next(folder.glob("*.html"))
        seconds = loading_seconds(browser, page)
        say(f"  a report of {number} prompts ({page.stat().st_size / 2**20:.1f} MiB) opens in {seconds:.2f} s")
        return {"rows": number, "MiB": page.stat().st_size / 2**20, "seconds": seconds, "goal": 2.0}


def loading_seconds(browser: str, page: Path) -> float:
    """Return the seconds from the start of the navigation to the page's load event, as the browser counts them."""
    script = "<script>addEventListener('load',()=>{document.title='ms='+Math.round(performance.now())})</script>"
    timed = page.with_name("timed.html")
    html = re.sub(r"<meta[^>]*Content-Security-Policy[^>]*>", "", page.read_text(encoding="utf-8"))
    timed.write_text(html + script, encoding="utf-8")
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--dump-dom"]
    dom = subprocess.run([browser, *flags, timed.as_uri()], check=True, capture_output=True, text=True).stdout
    shown = re.search(r"<title>ms=(\d+)</title>", dom)
    if shown is None:
        raise RuntimeError(f"{browser} did not say when the page was loaded")
    return int(shown[1]) / 1000


def run(stage: str, number: int) -> dict[str, float]:
    """Run a stage once; return its seconds, and the memory that it took beyond what was there before, at its peak."""
    with tempfile.TemporaryDirectory() as folder:
        work = STAGES[stage](number, Path(folder) / "out")
        before = peak_memory()
        start = time.perf_counter()
        work()
        seconds = time.perf_counter() - start
    peak = peak_memory()
    return {"seconds": seconds, "MiB": peak, "MiB_more": peak - before}


def main(words: Sequence[str] | None = None) -> None:
    """Run one stage and print what it took."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stage", choices=list(STAGES))
    parser.add_argument("number", type=int)
    given = parser.parse_args(words)
    print(json.dumps(run(given.stage, given.number)))


if __name__ == "__main__":
    main()
