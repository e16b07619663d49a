"""What `bench` found, for people."""

from dptrain.checked import Plain
from dptrain.words import counted


def text(found: Plain) -> str:
    """Return the tables, between what was measured and how."""
    places = [counted(found[f"{noun}s"], noun) for noun in ("rank", "node", "shard", "core")]
    return "\n".join(
        [
            f"{found['model']}, {counted(len(found['shapes']), 'array')}: "
            f"{found['num_params']:,} parameters ({found['dtype']}), batch {found['batch_size']}, "
            f"{found['optimizer']}",
            ", ".join([*places, f"{counted(found['threads'], 'thread')} a rank"]),
            "",
            *_part_lines(found),
            "",
            *_run_lines(found),
            "",
            f"medians of {found['rounds']} rounds of {found['steps_per_round']} steps, means over "
            f"ranks\nmemory: {found['memory_gb_per_s']:.1f} GB/s a rank, all ranks at once, adding "
            f"arrays of {found['memory_array_mb']:.1f} MB\n{found['software']}",
        ]
    )


def _part_lines(found: Plain) -> list[str]:
    """Return the table of a step's parts."""
    network = (
        f"\n{'':<47} and {found['reducing_network_mb']:.3g} MB a rank between nodes at "
        f"{found['network_gb_per_s']:.3g} GB/s"
        if found["network_gb_per_s"]
        else ""
    )
    floors = {
        "data": "rows read and written once",
        "model": f"its products at {found['products_gflop_per_s']:.3g} GFLOP/s a rank",
        "reducing": f"{found['reducing_memory_mb']:.3g} MB a rank in memory{network}",
        "optimizer": "parameters and state read and written once",
        "rest": "",
    }
    lines = [f"{'a step':<18}{'ms':>9}{'share':>8}{'floor ms':>10}   floor", "-" * 98]
    for name, why in floors.items():
        part = found["parts"][name]
        floor, why = (f"{part['floor_ms']:.3f}", why) if part["floor_ms"] else ("", "")
        lines.append(
            f"{name:<18}{part['time_ms']:>9.3f}{part['share_ratio']:>8.1%}"
            f"{floor:>10}   {why}".rstrip()
        )
    spread = f"{found['fastest_round_step_ms']:.4g} to {found['slowest_round_step_ms']:.4g}"
    floor_ms = sum(part["floor_ms"] or 0 for part in found["parts"].values())
    lines.append(
        f"{'whole step':<18}{found['step_ms']:>9.3f}{1:>8.1%}{floor_ms:>10.3f}   rounds {spread}; "
        f"its parts alone {found['parts_sum_ms']:.4g}"
    )
    return lines


def _run_lines(found: Plain) -> list[str]:
    """Return the table of the tree beside Allreduce, and of numbers of shards."""
    head = f"{'':<22}{'reduce and update, ms':>22}{'whole step, ms':>18}"
    lines = [
        f"{run['reduce'] + ', ' + counted(run['shards'], 'shard'):<22}"
        f"{run['reduce_and_update_ms']:>22.3f}{run['step_ms']:>18.3f}"
        for run in found["runs"]
    ]
    few, many = found["ranks"], 4 * found["ranks"]
    ratios = [
        f"MPI's Allreduce, with every rank updating all, takes "
        f"{found['allreduce_to_tree_ratio']:.2f} times as long as the tree",
        f"a step with {many} shards takes {found['fourfold_shards_step_ratio']:.2f} times as long "
        f"as one with {counted(few, 'shard')}",
    ]
    return [head, "-" * 62, *lines, *ratios]
