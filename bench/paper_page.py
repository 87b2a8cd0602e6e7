"""Fills docs/paper.md's text (bench/paper_page.txt) with the tables and figures of bench/paper.py."""

from collections.abc import Mapping
from pathlib import Path

import paper_models as paper
from tables import Table

__all__ = ["page"]

_PAGE = Path(__file__).with_suffix(".txt")


def page(tables: Mapping[str, Table], *, made: str, measured: str) -> str:
    """Returns docs/paper.md.

    Args:
        tables: All tables of bench/paper.py by name.
        made: Day of the page.
        measured: Day of the measurement by bench/sharing.py.
    """
    shown = {name.replace("-", "_"): table.markdown() for name, table in tables.items()}
    assumed = "\n".join(f"- {line}" for line in paper.assumptions())
    head = {"folder": "[paper/](paper/)", "made": made, "measured": measured, "assumptions": assumed, "seed": 0}
    return _PAGE.read_text(encoding="utf-8").format(**{**shown, **_claims(tables), **head}, **_optimal(tables))


def _claims(tables: Mapping[str, Table]) -> dict[str, str]:
    """Returns the figures of the first table; their names do not collide with those of tables."""
    split, sharing = tables["split"], tables["sharing"]
    rn50 = next(row for row in split.rows if row[0] == "CLIP rn50")
    saved = sharing.column("saved, %")
    mix = dict(zip([row[0] for row in tables["memory"].rows], tables["memory"].column("saved, %"), strict=True))
    latency = [row for row in tables["latency"].rows if not row[0].startswith("mix-")]
    columns = list(tables["latency"].columns)
    home, cloud = columns.index("ours, no server"), columns.index("cloud behind a WAN")
    server = columns.index("ours (auto)")
    less = [100 * (1 - row[home] / row[cloud]) for row in latency]
    return {
        "rn50": f"{rn50[2]:.1f}",
        "rn50_full": f"{rn50[1]:.1f}",
        "millions": f"{min(saved[:2]):.1f} to {max(saved[:2]):.1f}",
        "measured_saved": f"{saved[-1]:.1f}",
        "mix_all": f"{mix['mix-all']:.1f}",
        "faster": str(sum(share > 0 for share in less)),
        "faster_server": str(sum(row[server] < row[cloud] for row in latency)),
        "best": f"{max(less):.0f}",
    }


def _optimal(tables: Mapping[str, Table]) -> dict[str, str]:
    found = {row[0]: row[1] for row in tables["optimal"].rows}
    shares = [share for row in tables["sensitivity"].rows for share in row[2:4]]
    return {
        "compute": str(found["greedy:compute"]),
        "by_memory": str(found["greedy:memory"]),
        "lowest": f"{min(shares):.1f}",
        "highest": f"{max(shares):.1f}",
    }
