"""The model card: metadata that the hub's own library reads, wrong refusals first, every number from the run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import ModelCard, ModelCardData, metadata_load
from report_cases import make_score

from presafe.records import OperatingPoint
from presafe.report.card import AdapterFacts, CardFacts, DataSource, model_card
from presafe.report.data import ReportData
from presafe.report.public import base_on_hub, public_judge, public_settings

OWN = DataSource("alignment", "presafe's set harmful (align)", "Apache-2.0")
HUB = DataSource("alignment", "org/set (train)", "CC-BY-4.0", "org/set")
RECIPE = {
    "model": {"address": "smolthink"},
    "respond": {"teacher": None, "alignment_queries": [{"file": "/home/me/mine.csv", "expect": "comply"}]},
    "signal": {"encoder": "minilm"},
    "align": {
        "lora_rank": 16,
        "lora_alpha": 32,
        "lora_targets": ["q_proj"],
        "max_steps": 72,
        "batch_size": 4,
        "accumulation": 2,
        "learning_rate": 1e-3,
        "lambda_align": 0.1,
        "lambda_start": 1.0,
        "refusal_target": "thought",
        "thinking_off_share": 0.25,
    },
}
MANIFEST = {
    "commit": "abc",
    "packages": {"presafe": "0.2.0", "torch": "2.13.0"},
    "recipe_sha256": "0" * 64,
    "origins": {"xstest_safe": {"source": "walledai/XSTest", "license": "CC-BY-4.0"}},
}


@pytest.fixture
def run(data: ReportData) -> ReportData:
    """Return the report of a run with a settings table as recipes have it, and a published suite."""
    scores = (
        *data.scores,
        make_score("presafe", "on", "xstest_safe", "over_refusal_rate", 0.304, low=0.25, high=0.36, n=250, seed=1),
    )
    return data.model_copy(update={"recipe": RECIPE, "manifest": MANIFEST, "scores": scores})


ADAPTER = AdapterFacts(rank=16, alpha=29.6, targets=("k_proj", "q_proj"))


def card_of(data: ReportData, *sources: DataSource, seed: int = 0, rank: int | None = 16, **other: Any) -> Any:
    point = OperatingPoint(scale=0.925, refused_as_trained=31, refused=16, n=260)
    text = model_card(data, CardFacts("presafe", seed, ADAPTER, sources, rank, point)._replace(**other))
    return ModelCard(text)  # raises for metadata that is no YAML mapping, or a model-index out of form


def model_data(card: ModelCard) -> ModelCardData:
    """Return the metadata of a card, as that of a model."""
    assert isinstance(card.data, ModelCardData)
    return card.data


def test_the_hub_reads_the_metadata(run: ReportData, tmp_path: Path) -> None:
    card = card_of(run, OWN, HUB)
    file = tmp_path / "README.md"
    file.write_text(str(card), encoding="utf-8")
    metadata = metadata_load(file)
    assert metadata is not None
    assert metadata["library_name"] == "peft"
    assert "base_model" not in metadata  # SmolThink is no hub model, and SmolLM2 is not what the adapter was trained on
    assert metadata["datasets"] == ["org/set"]
    assert metadata["license"] == "other"  # one set is not under Apache-2.0
    assert model_data(card_of(run, OWN)).license == "apache-2.0"
    results = {result.dataset_type: result for result in model_data(card).eval_results or []}
    assert results["smolthink_harmful"].metric_value == 0.95  # PreSafe's, CoT on, and not vanilla's 0.083
    assert results["smolthink_harmful"].metric_args == {"low": 0.91, "high": 0.97, "n": 120, "thinking": "on"}


def test_wrong_refusals_come_first(run: ReportData) -> None:
    text = card_of(run, OWN).text
    first = text.index("Benign, held out: 3.3 % [1, 8] of 120 prompts")
    assert first < text.index("Borderline, held out: 20.0 % [13, 29] of 120 prompts") < text.index("## Results")
    rows = [line for line in text.splitlines() if line.startswith(("| Harmful", "| Benign"))]
    assert rows[0].startswith("| Benign, held out | – | wrongly refused | on | 0.8 % [0, 5] | 3.3 % [1, 8] | 120 |")
    assert "| Harmful, held out | – | refused | on | 8.3 % [5, 15] | 95.0 % [91, 97] | 120 |" in rows
    assert "| Harmful, held out | – | refused | off | 98.3 % [94, 100] | – | 120 |" in rows


def test_a_card_is_of_its_own_seed(run: ReportData) -> None:
    assert "XSTest safe: 30.4 %" not in card_of(run, OWN, seed=0).text
    of_seed = card_of(run, OWN, seed=1).text
    assert "XSTest safe: 30.4 % [25, 36] of 250 prompts" in of_seed
    assert "walledai/XSTest (CC-BY-4.0)" in of_seed
    assert "Benign, held out: " not in of_seed.partition("## Results")[0]


def test_a_run_without_harmless_prompts_says_so(run: ReportData) -> None:
    scores = tuple(score for score in run.scores if score.metric != "over_refusal_rate")
    assert "- not measured" in card_of(run.model_copy(update={"scores": scores}), OWN).text


def test_what_the_author_wrote_cannot_break_the_card(run: ReportData) -> None:
    odd = run.model_copy(update={"title": "x\n---\nlicense: mit\n<b>|"})
    card = card_of(odd, OWN._replace(origin="a|b\n<i>"))
    assert model_data(card).license == "apache-2.0"
    assert "| alignment | a\\|b &lt;i> | Apache-2.0 |" in card.text
    assert "# x --- license: mit &lt;b>\\|" in card.text


def test_vllms_line_is_left_out_where_it_cannot_serve(run: ReportData) -> None:
    assert "--max-lora-rank 16 " in card_of(run, OWN).text
    assert "vllm" not in card_of(run, OWN, rank=None).text.lower()


@pytest.mark.parametrize(
    ("address", "base"),
    [
        ("Qwen/Qwen3-8B", "Qwen/Qwen3-8B"),
        ("smolthink", None),  # SmolLM2 is not what the adapter was trained on
        ("http://127.0.0.1:8000#name", None),
        ("/models/own", None),
    ],
)
def test_only_a_hub_id_is_named_as_base(address: str, base: str | None) -> None:
    assert base_on_hub(address) == base


def test_the_card_describes_the_adapter_and_not_the_recipe(run: ReportData) -> None:
    made = card_of(run, OWN).text.partition("## How it was made")[2]
    assert made.lstrip().startswith("LoRA of rank 16 and alpha 29.6 on k_proj, q_proj\n(its alpha as scaled; ")
    assert "λ 0.1, λ_start 1.0 (0: the term is off)" in made
    own_shape = AdapterFacts(rank=1, alpha=2, targets=("up_proj",), blocks=(10, 11))
    rank_1 = card_of(run, OWN, system="sft_rank_1", adapter=own_shape, point=None, rank=1).text
    made = rank_1.partition("## How it was made")[2]
    assert made.lstrip().startswith("LoRA of rank 1 and alpha 2 on up_proj\nof blocks 10, 11, counted from 0\n(as `ad")
    assert "λ 0.0, λ_start 0.0" in made  # it trains on the next-token loss alone
    assert "--max-lora-rank 1 " in rank_1


def test_the_card_names_judges_teacher_and_encoder(run: ReportData) -> None:
    text = card_of(run, OWN).text
    assert "Teacher of the run: the model itself, asked with CoT off" in text
    assert "encoder\n`minilm`" in text
    judged = tuple(
        score.model_copy(
            update={"judge": "thought_strings" if score.metric.startswith("thought_") else "xstest=hf//m/j"}
        )
        for score in run.scores
    )
    thought = judged[0].model_copy(update={"metric": "thought_refusal_rate", "judge": "thought_strings"})
    teacher = {"address": "http://10.0.0.7:8000#Qwen/Qwen3-8B"}
    recipe = RECIPE | {"respond": {"teacher": teacher}, "signal": {"encoder": "/models/bert"}}
    text = card_of(run.model_copy(update={"scores": (*judged, thought), "recipe": recipe}), OWN).text
    assert "Judges of the answers: xstest=hf/j.\nJudges of the thoughts: thought_strings." in text
    assert "Teacher of the run: `Qwen/Qwen3-8B`" in text
    assert "encoder\n`bert`" in text
    assert "10.0.0.7" not in text


def test_a_card_holds_the_recipe_and_no_path(run: ReportData) -> None:
    local = run.model_copy(update={"recipe": RECIPE | {"model": {"address": "/home/me/models/own-3b"}}})
    text = card_of(local, OWN).text
    stored = json.loads(text.partition("```json\n")[2].partition("\n```")[0])
    assert stored["model"] == {"address": "own-3b"}
    assert stored["respond"]["alignment_queries"] == [{"file": "mine.csv", "expect": "comply"}]
    assert stored["align"] == RECIPE["align"]
    assert "/home" not in text
    assert 'from_pretrained("own-3b")' in text
    assert "Its base was a folder on the author's machine, `own-3b`" in text
    assert "recipe.json" not in text  # which `presafe push` does not send


def test_settings_are_published_without_paths_and_hosts(tmp_path: Path) -> None:
    settings = {
        "model": {"address": str(tmp_path), "tokenizer": "./tok"},
        "suites": [{"hub": "org/set", "n": 3}],
        "attacks": ["pair:attacker=http://10.0.0.7:8000/v1#m", "tap:attacker=http://10.0.0.7:8000/v1"],
    }
    assert public_settings(settings) == {
        "model": {"address": tmp_path.name, "tokenizer": "tok"},
        "suites": [{"hub": "org/set", "n": 3}],
        "attacks": ["pair:attacker=m", "tap:attacker=a server"],  # failed first: the host was published
    }
    panel = "majority:xstest=hf//home/me/judge+strong_reject_rubric=openai/gpt-4o-mini+refusal_strings"
    assert public_judge(panel) == "majority:xstest=hf/judge+strong_reject_rubric=openai/gpt-4o-mini+refusal_strings"
    assert public_judge("paper_panel") == "paper_panel"
