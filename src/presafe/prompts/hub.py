"""Draw prompts from a data set on the Hugging Face hub, or from a local folder with the same files.

1. take the rows of the named split whose columns have the named values, without empty prompts and repetitions
2. shuffle them with the seed
3. remove those that are in an evaluation suite, exactly or nearly (`overlap`)
4. skip `skip` prompts, then take `n`

So two sources of the same rows never share a prompt, if the second skips what the first takes.
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
from presafe.prompts.rows import category_of, cell_text, column_names, query_text
from presafe.records import Prompt
from presafe.runtime.reading import printable

_CHUNK = 512
"""Prompts that are compared with the suites at a time, so that of a large set only the needed rows are compared."""


def hub_prompts(source: HubSource, seed: int, held_out: Sequence[str] = ()) -> list[Prompt]:
    """Return the prompts that a `hub` source names: after `skip`, at most `n`.

    Args:
        source: A source with a `hub`.
        seed: Seed of the order.
        held_out: Texts of the evaluation suites; prompts that are the same or nearly the same are left out.

    Raises:
        PromptError: the data set cannot be reached, or has no such configuration, split or column.
    """
    return list(_drawn(source.model_dump_json(), seed, tuple(held_out)))


@lru_cache(maxsize=64)
def _drawn(source_json: str, seed: int, held_out: tuple[str, ...]) -> tuple[Prompt, ...]:
    """Draw the prompts of a source; each process draws them once, because all stages ask for the same."""
    source = HubSource.model_validate_json(source_json)
    prompts = _distinct(source, hub_rows(source))
    random.Random(f"{seed} {source.hub} {source.config} {source.split}").shuffle(prompts)
    last = None if source.n is None else source.skip + source.n
    kept: list[Prompt] = []
    for start in range(0, len(prompts), _CHUNK):
        chunk = prompts[start : start + _CHUNK]
        near = {index for index, _ in overlaps([prompt.text for prompt in chunk], held_out)}
        kept += [prompt for index, prompt in enumerate(chunk) if index not in near]
        if last is not None and len(kept) >= last:
            break
    return tuple(kept[source.skip : last])


def _distinct(source: HubSource, rows: Sequence[dict[str, Any]]) -> list[Prompt]:
    """Return the rows that `where` keeps as prompts, the first row of each text."""
    origin = source.origin
    name = "-".join(filter(None, (source.hub.rpartition("/")[2], source.config, source.split)))
    texts: set[str] = set()
    prompts = []
    for number, text, row in _kept_rows(source, rows):
        if (folded := fold(text)) in texts:
            continue
        texts.add(folded)
        prompts.append(
            Prompt(
                id=f"{name}-{number:06d}",
                text=text,
                category=category_of(row),
                split=source.split,
                license=source.license,
                expect=source.expect,
                target=cell_text(row, source.target_column, origin, number + 1) if source.target_column else None,
            )
        )
    return prompts


def _kept_rows(source: HubSource, rows: Sequence[dict[str, Any]]) -> Iterator[tuple[int, str, dict[str, Any]]]:
    """Yield number, prompt and columns of each row that has a prompt and the values of `where`."""
    origin = source.origin
    columns = list(rows[0]) if rows else []
    for needed in (source.column, source.target_column, *source.where):
        if needed is not None and needed not in columns:
            raise PromptError(f"{origin} has no column {needed!r}; it has: {column_names(rows[0])}.")
    for number, row in enumerate(rows):
        is_blank = row[source.column] is None or not str(row[source.column]).strip()
        if not is_blank and all(str(row[key]) in values for key, values in source.where.items()):
            if isinstance(row[source.column], float):  # a column of numbers, in which 2 became 2.0
                raise PromptError(f"{origin}: column {source.column!r} holds numbers, not texts.", "Name another one.")
            yield number, query_text(row, source.column, origin, number + 1), row


def hub_rows(source: HubSource) -> list[dict[str, Any]]:
    """Read the rows of the configuration and split that a `hub` source names, unchanged.

    Args:
        source: A source with a `hub`.

    Raises:
        PromptError: the data set cannot be reached, or has no such configuration or split.
    """
    import datasets

    folder = _folder(source)
    if special := [path for path in folder.rglob("*") if not (path.is_file() or path.is_dir())]:
        raise PromptError(f"cannot read {source.hub}: {printable(special[0])} is not a regular file.", "Remove it.")
    try:
        rows: list[dict[str, Any]] = datasets.load_dataset(str(folder), source.config, split=source.split).to_list()
    except StopIteration as error:  # `datasets` raises it for a file without rows
        raise PromptError(f"split {source.split!r} of {source.hub} holds no rows.") from error
    except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise PromptError(
            f"cannot read split {source.split!r} of {source.hub}: {reason}.",
            "Name a configuration (`config`) and a `split` that it has.",
        ) from error
    return rows


def _folder(source: HubSource) -> Path:
    """Return the folder of the data set: the one that `hub` names, or one in the Hugging Face cache, fetched if needed.

    Raises:
        PromptError: it cannot be fetched.
    """
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
            f"On a machine with a network, accept its terms on its page, run `hf auth login` and `{fetch}`; or add "
            '`--local-dir DIR` to that command, copy DIR here, and write hub = "DIR" in the recipe.',
        ) from error
