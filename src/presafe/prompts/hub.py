"""Prompts drawn from a data set on the Hugging Face hub, or from a local folder with the same files.

1. rows of the named split whose columns have the named values, without empty prompts and repetitions
2. in an order that the seed decides
3. without those that stand in an evaluation suite, exactly or nearly (`overlap`)
4. `skip` passed over, `n` taken

So two sources of the same rows never share a prompt where the second skips what the first takes.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from presafe.config.sources import HubSource
from presafe.errors import PromptError
from presafe.prompts.overlap import fold, overlaps
from presafe.prompts.rows import category_of, cell_text, column_names
from presafe.records import Prompt
from presafe.runtime.reading import printable

_CATEGORIES = ("category", "violated_categories", "Category", "subject", "data_type")
"""Columns that name a category, the first that a row has."""


def hub_prompts(source: HubSource, seed: int, held_out: Sequence[str] = ()) -> list[Prompt]:
    """The prompts that a `hub` source names; at most `n` after `skip`.

    Args:
        source: A source with a `hub`.
        seed: Seed of the order.
        held_out: Texts of the evaluation suites; prompts that are nearly one of them are passed over.

    Raises:
        PromptError: the data set cannot be reached, or has no such configuration, split or column.
    """
    return list(_drawn(source.model_dump_json(), seed, tuple(held_out)))


@lru_cache(maxsize=64)
def _drawn(source_json: str, seed: int, held_out: tuple[str, ...]) -> tuple[Prompt, ...]:
    """Every stage asks for the same prompts, so they are drawn once in a process."""
    source = HubSource.model_validate_json(source_json)
    prompts = _distinct(source, hub_rows(source))
    random.Random(f"{seed} {source.hub} {source.config} {source.split}").shuffle(prompts)
    last = None if source.n is None else source.skip + source.n
    kept: list[Prompt] = []
    for start in range(0, len(prompts), _AT_ONCE):
        some = prompts[start : start + _AT_ONCE]
        near = {index for index, _ in overlaps([prompt.text for prompt in some], held_out)}
        kept += [prompt for index, prompt in enumerate(some) if index not in near]
        if last is not None and len(kept) >= last:
            break
    return tuple(kept[source.skip : last])


_AT_ONCE = 512
"""Prompts compared with the suites at once: large sets are read no further than they are needed."""


def _distinct(source: HubSource, rows: Sequence[dict[str, Any]]) -> list[Prompt]:
    """The rows that `where` keeps, as prompts, the first of each text."""
    origin = source.origin
    name = "-".join(filter(None, (source.hub.rpartition("/")[2], source.config, source.split)))
    seen: set[str] = set()
    prompts = []
    for number, text, row in _kept(source, rows):
        if (folded := fold(text)) in seen:
            continue
        seen.add(folded)
        prompts.append(
            Prompt(
                id=f"{name}-{number:06d}",
                text=text,
                category=category_of(row, _CATEGORIES),
                split=source.split,
                license=source.license,
                expect=source.expect,
                target=cell_text(row, source.target_column, origin, number + 1) if source.target_column else None,
            )
        )
    return prompts


def _kept(source: HubSource, rows: Sequence[dict[str, Any]]) -> Iterator[tuple[int, str, dict[str, Any]]]:
    """Number, prompt and columns of each row that has a prompt and the values of `where`."""
    origin = source.origin
    columns = list(rows[0]) if rows else []
    for needed in (source.column, source.target_column, *source.where):
        if needed is not None and needed not in columns:
            raise PromptError(f"{origin} has no column {needed!r}; it has: {column_names(rows[0])}.")
    for number, row in enumerate(rows):
        is_blank = row[source.column] is None or not str(row[source.column]).strip()
        if not is_blank and all(str(row[key]) in values for key, values in source.where.items()):
            if isinstance(row[source.column], float):  # of a column of numbers, in which 2 became 2.0
                raise PromptError(f"{origin}: column {source.column!r} holds numbers, not texts.", "Name another one.")
            yield number, cell_text(row, source.column, origin, number + 1), row


def hub_rows(source: HubSource) -> list[dict[str, Any]]:
    """The rows of the configuration and split that a `hub` source names, as they stand.

    Raises:
        PromptError: the data set cannot be reached, or has no such configuration or split.
    """
    import datasets

    folder = _folder(source)
    if odd := [path for path in folder.rglob("*") if not (path.is_file() or path.is_dir())]:
        raise PromptError(f"cannot read {source.hub}: {printable(odd[0])} is not a regular file.", "Take it away.")
    try:
        rows: list[dict[str, Any]] = datasets.load_dataset(str(folder), source.config, split=source.split).to_list()
    except StopIteration as error:  # what `datasets` raises of a file without a row
        raise PromptError(f"split {source.split!r} of {source.hub} holds no rows.") from error
    except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise PromptError(
            f"cannot read split {source.split!r} of {source.hub}: {reason}.",
            "Name a configuration and a split that it has.",
        ) from error
    return rows


def _folder(source: HubSource) -> Path:
    """The data set's files: the folder that `hub` names, or the Hugging Face cache, into which they may be fetched."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    if Path(source.hub).is_dir():
        return Path(source.hub)
    try:
        return Path(snapshot_download(source.hub, repo_type="dataset", revision=source.revision))
    except (HfHubHTTPError, LocalEntryNotFoundError, HFValidationError) as error:
        fetch = f"hf download --repo-type dataset {source.hub}"
        if source.revision:
            fetch += f" --revision {source.revision}"
        raise PromptError(
            f"cannot fetch the data set {source.hub} ({source.license}) from the Hugging Face hub: "
            f"{str(error).strip().splitlines()[0]}",
            f"Where a network is at hand, accept its terms on its page, `hf auth login`, and `{fetch}`; or add "
            '`--local-dir DIR` to that command, copy DIR here, and write hub = "DIR" in the recipe.',
        ) from error
