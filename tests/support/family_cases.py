"""Each reasoning template beside its family, on a tokenizer; and the table that the documentation shows."""

from __future__ import annotations

import copy
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import real_tokenizers
from transformers import AddedToken

from presafe.models.family import families
from presafe.models.loading import load_renderer
from presafe.models.recognition import detect_family
from presafe.models.rendering import Answer, Renderer, asked
from presafe.models.templates import with_fixed_day
from presafe.records import Thinking

TEXT = "What is 7 + 5?"


class Case(NamedTuple):
    """A template and what is expected of it."""

    family: str
    template: str
    """A file that TRL ships, or the source of one of ours that renders as the publisher's does."""
    marks: tuple[str, ...]
    """Tokens that the model's tokenizer has and the stand-in lacks."""
    tokenizer: str | None = None
    """A package's tokenizer; None is the stand-in: SmolLM2's with all marks added."""

    @property
    def is_shipped(self) -> bool:
        return self.template.endswith(".jinja")

    @property
    def source(self) -> str:
        return real_tokenizers.template(self.template) if self.is_shipped else self.template


def _turns(turn: str, opens: str, first: str = "") -> str:
    """Return a template of turns: each message as `turn`, then what opens the answer."""
    return f"{{{{ bos_token }}}}{first}{{% for m in messages %}}{turn}{{% endfor %}}{opens}"


_HEADER = "<|start_header_id|>{{ m.role }}<|end_header_id|>\n\n{{ m.content }}<|eot_id|>"
_CHATML = "<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n"
_THINK = ("<think>", "</think>")
_IM = ("<|im_start|>", "<|im_end|>")
_TURN = ("<|turn>", "<turn|>", "<|channel>", "<channel|>", "<|think|>")
QWENTHINK = Path(__file__).parents[2] / "tools" / "qwenthink" / "chat_template.jinja"
_ROLES = ("<|start|>", "<|message|>")

CASES = {
    **{
        file: Case("gemma4", f"{file}.jinja", _TURN)
        for file in ("gemma4", "gemma4_v2", "gemma4_v3", "gemma4_v4", "gemma4_v5", "diffusion_gemma")
    },
    "glm4moe": Case("glm4_moe", "glm4moe.jinja", ("<|user|>", "<|assistant|>", "<|observation|>", *_THINK)),
    "gptoss": Case("gpt_oss", "gptoss.jinja", (), "gptoss"),
    **{file: Case("lfm2_5", f"{file}.jinja", (*_IM, *_THINK)) for file in ("lfm2_2_5", "lfm2_2_5_v2", "lfm2_2_5_vl")},
    "muse_glimmer": Case("muse_glimmer", "muse_glimmer.jinja", (*_ROLES, "<|eom|>", "<|eot|>", "assistant")),
    "nemotron_3_nano": Case("nemotron_3", "nemotron_3_nano.jinja", (*_IM, *_THINK)),
    "nemotron_3_5_lightning": Case("nemotron_3", "nemotron_3_5_lightning.jinja", (*_IM, *_THINK)),
    "nemotron_3_super": Case("nemotron_3_super", "nemotron_3_super.jinja", (*_IM, *_THINK)),
    "nemotron_3_ultra": Case("nemotron_3_ultra", "nemotron_3_ultra.jinja", (*_IM, *_THINK)),
    "qwen3_8": Case("qwen3_8", "qwen3_8.jinja", (), "qwen3"),
    "deepseek_r1_distill": Case("deepseek_r1", "deepseek_r1_distill.jinja", (), "r1_distill_qwen"),
    "deepseekv3": Case("deepseek_r1", "deepseekv3.jinja", (), "deepseek_v4"),
    "qwen3": Case("qwen3", "qwen3.jinja", (), "qwen3"),
    "Qwen3-Thinking-2507": Case("qwen_thinking", real_tokenizers.qwen_thinking(), (), "qwen3"),
    **{file: Case("qwen3_5", f"{file}.jinja", (), "qwen3") for file in ("qwen3_5_think", "qwen3_5_nothink", "qwen3_6")},
    "DeepSeek-V3.1": Case(
        "deepseek_v3_1",
        _turns(
            "{{ '<｜User｜>' if m.role == 'user' else '<｜Assistant｜></think>' }}{{ m.content }}",
            "<｜Assistant｜>{{ '<think>' if (thinking if thinking is defined else enable_thinking) else '</think>' }}",
        ),
        (),
        "deepseek_v4",
    ),
    "Nemotron-Nano-v2": Case(
        "nemotron_nano_v2",
        "{% set ns = namespace(off=false) %}<SPECIAL_10>System\n\n{% for m in messages %}"
        "{% if '/no_think' in m.content %}{% set ns.off = true %}{% endif %}"
        "{{ '\n<SPECIAL_11>' + m.role|capitalize + '\n' + m.content.replace('/no_think', '').strip() + '\n' }}"
        "{% endfor %}<SPECIAL_11>Assistant\n{{ '<think></think>' if ns.off else '<think>\n\n' }}",
        ("<SPECIAL_10>", "<SPECIAL_11>", "<SPECIAL_12>"),
    ),
    "Llama-Nemotron-v1.5": Case(
        "llama_nemotron",
        "{% set system = messages[0].content if messages[0].role == 'system' else '' %}"
        "<|start_header_id|>system<|end_header_id|>\n\n{{ system.replace('/no_think', '')|trim }}<|eot_id|>"
        "{% for m in messages if m.role != 'system' %}" + _HEADER + "{% endfor %}"
        "<|start_header_id|>assistant<|end_header_id|>\n\n"
        "{{ '<think>\n\n</think>\n\n' if '/no_think' in system else '' }}",
        ("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"),
    ),
    "SmolLM3": Case(
        "smollm3",
        "{% set on = enable_thinking is not defined or enable_thinking %}<|im_start|>system\n"
        "Today Date: {{ strftime_now('%d %B %Y') }}\nReasoning Mode: {{ '/think' if on else '/no_think' }}\n\n"
        "{% for m in messages %}" + _CHATML + "{% endfor %}<|im_start|>assistant\n"
        "{{ '' if on else '<think>\n\n</think>\n' }}",
        _IM,
    ),
    "Magistral": Case(
        "magistral",
        _turns(
            "[INST]{{ m.content }}[/INST]",
            "",
            "[SYSTEM_PROMPT]Think first.[THINK]Your draft.[/THINK]Then answer.[/SYSTEM_PROMPT]",
        ),
        ("[INST]", "[/INST]", "[THINK]", "[/THINK]", "[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]", "</s>"),
    ),
    "Granite-3.3": Case(
        "granite_3_3",
        _turns(
            "<|start_of_role|>{{ m.role }}<|end_of_role|>{{ m.content }}<|end_of_text|>\n",
            "<|start_of_role|>assistant<|end_of_role|>",
            "<|start_of_role|>system<|end_of_role|>You help.{{ ' Use <think></think> and <response></response>.' "
            "if thinking else '' }}<|end_of_text|>\n",
        ),
        ("<|start_of_role|>", "<|end_of_role|>", "<|end_of_text|>"),
    ),
    "EXAONE-4.0": Case(
        "exaone4",
        _turns(
            "[|{{ m.role }}|]\n{{ m.content }}[|endofturn|]\n",
            "[|assistant|]\n{{ '<think>\n' if enable_thinking else '<think>\n\n</think>\n\n' }}",
        ),
        ("[|user|]", "[|assistant|]", "[|endofturn|]", *_THINK),
    ),
    "Phi-4-reasoning": Case(
        "phi4_reasoning",
        _turns(
            "<|im_start|>{{ m.role }}<|im_sep|>{{ m.content }}<|im_end|>",
            "<|im_start|>assistant<|im_sep|>",
            "<|im_start|>system<|im_sep|>Write <think> your thought </think> and a solution.<|im_end|>",
        ),
        (*_IM, "<|im_sep|>"),
    ),
    "OLMo-3-Think": Case("olmo3_think", _turns(_CHATML, "<|im_start|>assistant\n<think>"), (*_IM, "<|endoftext|>")),
    "Kimi-K2-Thinking": Case(
        "kimi_k2_thinking",
        _turns(
            "<|im_{{ m.role }}|>{{ m.role }}<|im_middle|>{{ '<think></think>' if m.role == 'assistant' else '' }}"
            "{{ m.content }}<|im_end|>",
            "{% if add_generation_prompt %}<|im_assistant|>assistant<|im_middle|>{% endif %}",
        ),
        ("<|im_user|>", "<|im_assistant|>", "<|im_middle|>", "<|im_end|>", *_THINK),
    ),
    "MiniMax-M2": Case(
        "minimax_m2",
        _turns("]~b]{{ m.role }}\n{{ m.content }}[e~[\n", "]~b]ai\n<think>{{ '\n' }}"),
        ("]~b]", "[e~[", *_THINK),
    ),
    "QwenThink": Case("qwenthink", QWENTHINK.read_text(encoding="utf-8"), (*_IM, "<|endoftext|>")),
}
"""Those of TRL 1.16 with a thought, and of the wider field ours that render as the publishers' do."""


@cache
def renderer_of(name: str) -> Renderer:
    """Return the renderer of a case.

    Raises:
        real_tokenizers.Unreachable: its package cannot be fetched.
    """
    case = CASES[name]
    tokenizer = copy.copy(_tokenizer(case.tokenizer))
    tokenizer.chat_template = case.source
    return Renderer(tokenizer, families()[case.family])


@cache
def _tokenizer(name: str | None) -> Any:
    if name is not None:
        return real_tokenizers.load(name)
    tokenizer = copy.deepcopy(load_renderer("smolthink").tokenizer)
    marks = dict.fromkeys(mark for case in CASES.values() for mark in case.marks)
    tokenizer.add_tokens([AddedToken(mark, special=True, normalized=False) for mark in marks])
    return tokenizer


def own_rendering(renderer: Renderer, thinking: Thinking) -> str:
    """Return what the template itself renders for the case's text, with the prefill of the mode."""
    family, tokenizer = renderer.family, renderer.tokenizer
    mode = family.modes[thinking]
    text: str = tokenizer.apply_chat_template(
        asked(mode, TEXT),
        chat_template=with_fixed_day(tokenizer.chat_template),
        add_generation_prompt=True,
        tokenize=False,
        **mode.variables,
    )
    return text + (family.off_prefill if thinking == "off" else family.on_prefill)


def table() -> str:
    """Return the documentation's table of templates, each cell computed."""
    lines = [
        "| template | recognized as | after the user's text, CoT on | CoT off | decision, CoT on | CoT off | thought "
        "| answer | read back |",
        "|" + " --- |" * 9,
    ]
    for name, case in CASES.items():
        renderer = renderer_of(name)
        family, decode = renderer.family, renderer.tokenizer.decode
        assert detect_family(case.source, name).name == case.family
        on, off = renderer.render(TEXT, "on"), renderer.render(TEXT, "off")
        decisions = [decode([prompt.ids[prompt.decision_index]]) for prompt in (on, off)]
        same = off.ids[: len(on.ids)] == on.ids
        (before_on, _, after_on), (before_off, _, after_off) = (decode(side.ids).partition(TEXT) for side in (on, off))
        cells = [
            _code(after_on),
            _code(after_off) + (", and another text before it" if before_on != before_off else ""),
            _code(decisions[0]),
            "the same" if same else _code(decisions[1]),
            _code(f"{family.think_open}…{family.think_close}"),
            _code(family.answer_open) if family.answer_open else "what follows",
        ]
        read = renderer.split(renderer.completion("A thought.", "An answer."), "on")
        is_read = "yes" if read == Answer("A thought.", "An answer.", False) else "no"
        lines.append("| " + " | ".join([name, f"`{case.family}`", *cells, is_read]) + " |")
    return "\n".join(lines)


def _code(text: str) -> str:
    """Return a text as code in a cell of a table."""
    return f"`{repr(text)[1:-1]}`".replace("|", "\\|")


if __name__ == "__main__":
    print(table())
