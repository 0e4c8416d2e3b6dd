"""Pictures as they come: files that cannot be decoded are left out, and what is odd is said.

All processes of a job agree on what is left out before anything is trained, so splits and order are the same on each.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch

from training.data import DataError, DataSet, Found, Picture
from training.distributed import Worker, gather_rows, require_agreement
from training.reading import Reading, defect

MAX_NAMED = 5
"""Files that an error or a warning names."""
MAX_LOGGED = 50


def bad_files(reading: Reading, worker: Worker, threads: int) -> dict[Picture, str]:
    """The files that cannot be used as pictures, and why; the same on every process, each of which decodes its share.

    Why a file is bad is found out again by each process: there are few, and so they exchange only flags.
    """
    require_agreement(worker, "pictures", reading.found.manifest_sha256)
    reading.finish(threads)
    flags = torch.zeros(len(reading.files), dtype=torch.uint8)
    flags[reading.bad] = 1
    bad = [reading.files[int(i)] for i in gather_rows(worker, flags).nonzero()]
    return {picture: defect(picture) or "another host cannot decode it" for picture in bad}


def without(found: Found, bad: Mapping[Picture, str], max_share: float) -> Found:
    """Leave the bad files out.

    Raises:
        DataError: they are more than `max_share` of all files; names the first ones.
    """
    if len(bad) > max_share * len(found.files):
        some = "; ".join(f"{found.name(picture)} ({why})" for picture, why in list(bad.items())[:MAX_NAMED])
        more = f", and {len(bad) - MAX_NAMED} more" if len(bad) > MAX_NAMED else ""
        raise DataError(
            f"{len(bad)} of {len(found.files)} files cannot be used as pictures, --max-bad-share allows "
            f"{max_share:.1%}: {some}{more}"
        )
    parts = {split: tuple(picture for picture in part if picture not in bad) for split, part in found.parts.items()}
    return replace(found, parts=parts)


def copies(pictures: DataSet) -> list[Picture]:
    """The test pictures that are, byte for byte, among the train pictures too: they make the accuracy too good."""
    known = {picture.sha256 for picture in pictures.train}
    return [picture for picture in pictures.test if picture.sha256 in known]


def say(left_out: Sequence[Mapping[str, str]], copied: Sequence[str]) -> None:
    """Log what was left out and which test pictures are train pictures too; evaluation.json lists all of them."""
    for entry in left_out[:MAX_LOGGED]:
        print(f"left out: {entry['picture']}: {entry['reason']}", flush=True)
    if len(left_out) > MAX_LOGGED:
        print(f"left out: {len(left_out) - MAX_LOGGED} more, listed in evaluation.json", flush=True)
    if copied:
        print(
            f"warning: {len(copied)} test pictures are train pictures too, so the measured accuracy is too good: "
            f"{', '.join(copied[:MAX_NAMED])}{', ...' if len(copied) > MAX_NAMED else ''}",
            flush=True,
        )
