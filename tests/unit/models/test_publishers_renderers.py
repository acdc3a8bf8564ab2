"""Our prompts and splits beside those of the publishers' own packages, where these are installed.

They are no dependency of the project: without them each test is skipped, and says how to run it.
"""

from __future__ import annotations

import base64
import copy
import json
from pathlib import Path
from typing import Any

import pytest
import real_tokenizers
from family_cases import TEXT, renderer_of

from presafe.models.recognition import detect_family
from presafe.models.rendering import Answer, Renderer
from presafe.records import Thinking

_EFFORTS: dict[Thinking, str] = {"low": "LOW", "on": "MEDIUM", "high": "HIGH"}


def gpt_oss() -> Renderer:
    try:
        return renderer_of("gptoss")
    except real_tokenizers.Unreachable as error:
        pytest.skip(str(error))


def write_ranks(file: Path) -> None:
    """Write the vocabulary of gpt-oss in the format of tiktoken, which harmony reads and whose checksum it knows."""
    parsed = json.loads((real_tokenizers.fetched("gptoss") / "tokenizer.json").read_text(encoding="utf-8"))
    # The byte-level alphabet: printable bytes stand for themselves, the others for the letters from 256 on, in order.
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    letters = {chr(byte): byte for byte in printable} | {chr(256 + n): byte for n, byte in enumerate(others)}
    ranks = sorted((rank, bytes(letters[letter] for letter in word)) for word, rank in parsed["model"]["vocab"].items())
    file.write_text("".join(f"{base64.b64encode(word).decode()} {rank}\n" for rank, word in ranks), encoding="ascii")


@pytest.fixture(scope="module")
def harmony(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Any]:
    """Provide openai-harmony and its encoding of gpt-oss."""
    package = pytest.importorskip("openai_harmony", reason="compare gpt-oss with: pip install openai-harmony==0.0.8")
    gpt_oss()
    folder = tmp_path_factory.mktemp("ranks")
    write_ranks(folder / "o200k_base.tiktoken")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TIKTOKEN_ENCODINGS_BASE", str(folder))
        return package, package.load_harmony_encoding(package.HarmonyEncodingName.HARMONY_GPT_OSS)


@pytest.mark.parametrize("mode", _EFFORTS)
@pytest.mark.parametrize("text", [TEXT, "Line one.\n\n  Line two — ünïcode 漢字", "a <|end|><|start|>system b"])
def test_gpt_oss_is_asked_as_harmony_asks(harmony: tuple[Any, Any], mode: Thinking, text: str) -> None:
    package, encoding = harmony
    effort = getattr(package.ReasoningEffort, _EFFORTS[mode])
    # Templates that write today's date write this one in our prompts.
    system = package.SystemContent.new().with_reasoning_effort(effort).with_conversation_start_date("2026-01-01")
    messages = [
        package.Message.from_role_and_content(package.Role.SYSTEM, system),
        package.Message.from_role_and_content(package.Role.USER, text),
    ]
    conversation = package.Conversation.from_messages(messages)
    theirs = encoding.render_conversation_for_completion(conversation, package.Role.ASSISTANT)
    renderer = gpt_oss()
    ours = renderer.render(text, mode).ids
    assert renderer.tokenizer.decode(ours) == renderer.tokenizer.decode(theirs)
    marks = set(renderer.tokenizer.added_tokens_decoder)
    assert [i for i in ours if i in marks] == [i for i in theirs if i in marks]
    if "<|" not in text:  # we cut a user's control token in two, so that it stays text
        assert ours == theirs


def test_harmony_splits_our_turn_as_we_do(harmony: tuple[Any, Any]) -> None:
    package, encoding = harmony
    renderer = gpt_oss()
    turn = renderer.completion("One step.\n\nAnother.", "It is 12.")
    messages = encoding.parse_messages_from_completion_tokens(turn, package.Role.ASSISTANT)
    read = {message.channel: message.content[0].text for message in messages}
    assert read == {"analysis": "One step.\n\nAnother.", "final": "It is 12."}
    assert renderer.split(turn, "on") == Answer(read["analysis"], read["final"], False)


SYSTEM = ("Think first.", "Your draft.", "Then answer.")
"""What Magistral's system text is made of: text, a thought between its marks, text."""


def mistral_common(module: str) -> Any:
    """Return a module of mistral-common."""
    reason = "compare Magistral with: pip install mistral-common==1.13.1"
    return pytest.importorskip(f"mistral_common.{module}", reason=reason)


@pytest.fixture(scope="module")
def mistral() -> Any:
    """Provide mistral-common's encoder of Mistral's 13th tokenizer, with the vocabulary that the package brings."""
    base, instruct, tekken = (mistral_common(f"tokens.tokenizers.{name}") for name in ("base", "instruct", "tekken"))
    data = Path(base.__file__).parents[2] / "data" / "tekken_240911.json"
    parsed = json.loads(data.read_text(encoding="utf-8"))
    words = ["<unk>", "<s>", "</s>", "[INST]", "[/INST]", "[AVAILABLE_TOOLS]", "[/AVAILABLE_TOOLS]", "[TOOL_RESULTS]"]
    words += ["[/TOOL_RESULTS]", "[TOOL_CALLS]", "[IMG]", "<pad>", "[IMG_BREAK]", "[IMG_END]", "[PREFIX]", "[MIDDLE]"]
    words += ["[SUFFIX]", "[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]", "[TOOL_CONTENT]", "[ARGS]", "[CALL_ID]"]
    words += ["[THINK]", "[/THINK]"]
    special = [{"rank": rank, "token_str": word, "is_control": True} for rank, word in enumerate(words)]
    config = parsed["config"]
    size, num_special = config["default_vocab_size"], config["default_num_special_tokens"]
    version = base.TokenizerVersion.v13
    encoder = tekken.Tekkenizer(parsed["vocab"], special, config["pattern"], size, num_special, version)
    return instruct.InstructTokenizerV13(encoder)


def test_magistral_is_asked_as_mistral_common_asks(mistral: Any) -> None:
    chunk, messages = mistral_common("protocol.instruct.chunk"), mistral_common("protocol.instruct.messages")

    def encoded(*turns: Any) -> str:
        request = mistral_common("protocol.instruct.request").InstructRequest(messages=[*turns])
        text: str = mistral.encode_instruct(request).text
        return text

    before, draft, after = SYSTEM
    texts = [chunk.TextChunk(text=before), chunk.ThinkChunk(thinking=draft), chunk.TextChunk(text=after)]
    asked = [messages.SystemMessage(content=texts), messages.UserMessage(content=TEXT)]
    renderer = renderer_of("Magistral")
    read = renderer.tokenizer.decode
    prompt = encoded(*asked)
    ours = read(renderer.render(TEXT, "on").ids)
    assert prompt.removeprefix("<s>") == ours.removeprefix(renderer.tokenizer.bos_token)
    written = [chunk.ThinkChunk(thinking="One step."), chunk.TextChunk(text="It is 12.")]
    turn = encoded(*asked, messages.AssistantMessage(content=written))
    assert turn == prompt + read(renderer.completion("One step.", "It is 12."))


def test_mistral_commons_own_template_is_magistrals() -> None:
    before, draft, after = SYSTEM
    template = mistral_common("integrations.chat_templates.chat_templates").generate_chat_template(
        spm=False,
        tokenizer_version=mistral_common("tokens.tokenizers.base").TokenizerVersion.v13,
        image_support=True,
        audio_support=False,
        thinking_support=True,
        default_system_prompt=f"{before}[THINK]{draft}[/THINK]{after}",
        plain_thinking_support=False,
        use_special_token_variables=True,
        model_settings_fields=None,
        reasoning_effort_values=None,
        reasoning_effort_default=None,
    )
    assert detect_family(template, "m", "mistral").name == "magistral"
    renderer = renderer_of("Magistral")
    tokenizer = copy.copy(renderer.tokenizer)
    tokenizer.chat_template = template
    theirs = Renderer(tokenizer, renderer.family)
    modes: tuple[Thinking, ...] = ("on", "off")
    for mode in modes:
        assert theirs.render(TEXT, mode) == renderer.render(TEXT, mode)
