"""`presafe probe`: how big is the gap of a model?"""

from __future__ import annotations

from presafe.cli import options


def probe(
    model: options.Model,
    suite: options.Suites = None,
    thinking: options.ThinkingModes = "on,off",
    limit: options.Limit = None,
    data_dir: options.DataDir = None,
    max_tokens: options.MaxTokens = None,
    samples: options.Samples = 1,
    temperature: options.Temperature = None,
    top_p: options.TopP = None,
    top_k: options.TopK = None,
    sandbox: options.Sandbox = None,
    batch_size: options.BatchSize = 64,
    judge: options.Judge = None,
    judge_thought: options.JudgeThought = None,
    batch_tokens: options.BatchTokens = 65_536,
    family: options.Family = None,
    tokenizer: options.Tokenizer = None,
    dtype: options.Dtype = "float32",
    out: options.Out = None,
) -> None:
    """Measure a model as it is: what it refuses with its chain of thought on and off."""
    from presafe.cli.evaluate import measure_and_print

    suites = options.read_suites(suite or ["smolthink_harmful", "smolthink_benign"], data_dir, limit)
    modes = options.read_modes(thinking)
    sampling = options.read_sampling(temperature, top_p, top_k)
    judged = options.judges_of(judge, judge_thought)
    named = options.read_model(model, family, dtype, tokenizer)
    measure_and_print(
        named,
        suites,
        out
        or options.folder_for(
            *("probe", model, sorted(suites), limit, modes, max_tokens, samples, sampling, sandbox),
            *(family, tokenizer, dtype, *judged),
        ),
        thinking=modes,
        max_tokens=options.read_budget(max_tokens, named),
        batch_size=batch_size,
        samples=samples,
        sampling=sampling,
        sandbox=sandbox,
        batch_tokens=batch_tokens,
        judge=judge,
        judge_thought=judge_thought,
        origins=options.read_origins(suites, data_dir),
    )
