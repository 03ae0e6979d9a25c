"""What `pulvinar reproduce --list` and `--dry-run` print."""

from typing import Any

from pulvinar.scores.table import Column, Table


def of_list(rows: list[dict[str, Any]]) -> str:
    """A row for every recipe; below, by paper, what each is and what it needs."""
    columns = [
        Column("name", "recipe", lead=True),
        Column("n_published", "published", form="d"),
        Column("time", "full, here"),
        Column("memory_gb", "memory", "GB", ".1f"),
        Column("here", "data here"),
    ]
    shown = [
        row
        | {
            "n_published": len(row["published"]),
            "time": "–" if row["hours"] is None else hours(row["hours"]),
            "here": "yes" if row["available"] else "no",
        }
        for row in rows
    ]
    lines = [Table(columns, shown).text(), ""]
    for paper in dict.fromkeys(row["paper"] for row in rows):
        own = [row for row in rows if row["paper"] == paper]
        lines += [paper, *(f"  {row['name']}: {row['title']}" for row in own)]
        lines += [f"  needs {text}" for text in dict.fromkeys(text for row in own for text in row["needs"])]
    lines.append("Every recipe runs in minutes on planted data: pulvinar reproduce NAME --scale small --out OUT")
    return "\n".join(lines)


def of_plan(plan: dict[str, Any]) -> str:
    """Every cell with its settings; those that all cells share stand once."""
    cells = plan["cells"]
    shared = {
        key: value
        for key, value in cells[0]["settings"].items()
        if all(key in cell["settings"] and cell["settings"][key] == value for cell in cells)
    }
    lines = [f"{plan['name']} at scale {plan['scale']}: {len(cells)} cells"]
    lines += [f"  new subjects: {', '.join(plan['targets'])}"] if plan["targets"] else []
    lines += [f"  {name}: {', '.join(map(str, values))}" for name, values in plan["axes"].items()]
    if plan.get("hours") is not None:
        lines.append(f"  about {hours(plan['hours'])} at this machine's speed now, {plan['memory_gb']:.1f} GB of memory")
    lines += ["differs from the paper:", *(f"  {text}" for text in plan["differs"])]
    lines += ["settings of every cell:", *(f"  {key} = {value}" for key, value in shared.items())]
    for cell in cells:
        own = {key: value for key, value in cell["settings"].items() if key not in shared}
        lines += [f"{cell['data']}, {cell['cell']} ({cell['method']}):", *(f"  {key} = {value}" for key, value in own.items())]
    return "\n".join(lines)


def hours(value: float) -> str:
    """'40 min', '7 h', '12 days'."""
    return f"{value * 60:.0f} min" if value < 2 else f"{value:.0f} h" if value < 72 else f"{value / 24:,.0f} days"
