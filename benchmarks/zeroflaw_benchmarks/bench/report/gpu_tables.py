"""What a bench report says of GPUs, as tables."""

from __future__ import annotations

from collections.abc import Sequence

from zeroflaw_benchmarks.bench.machine.spread import Spread
from zeroflaw_benchmarks.bench.report.gpu import GpuUse, PinnedCopy
from zeroflaw_benchmarks.bench.report.peer import Peer
from zeroflaw_benchmarks.bench.report.report import Transfer
from zeroflaw_benchmarks.bench.report.rooflines import Ceiling
from zeroflaw_benchmarks.bench.report.text_table import TextTable, spread_ms


def gpu_table(gpus: Sequence[GpuUse]) -> TextTable:
    """Lay out clocks, power, temperature and memory of each GPU while the bench ran."""
    rows = tuple(
        (
            gpu.name,
            _whole(gpu.clock_mhz),
            _whole(gpu.memory_clock_mhz),
            _whole(gpu.power_w)
            + ("" if gpu.power_limit_w is None else f" of {gpu.power_limit_w:.0f}"),
            _whole(gpu.temperature_c),
            "" if gpu.memory_used_gb is None else f"{gpu.memory_used_gb.most:.2f}",
            ", ".join(f"{name} {100 * share:.0f} %" for name, share in gpu.held_back.items()),
        )
        for gpu in gpus
    )
    heads = ("GPU", "clock, MHz", "memory clock, MHz", "power, W", "C", "peak GB", "held back by")
    samples = max(gpu.samples for gpu in gpus)
    note = (
        f"By nvidia-smi, {samples} samples over the whole run, pauses of the GPU included:"
        " median (least-most). Peak GB is of all processes."
    )
    return TextTable("GPUs during the run", heads, rows, note)


def transfer_table(transfers: Sequence[Transfer], pinned: Sequence[PinnedCopy]) -> TextTable:
    """Lay out what crosses between host and GPU, and the least time that it takes."""
    rates = {copy.direction: copy.gigabytes_per_second for copy in pinned}
    rows = tuple(
        (
            f"{one.engine}: {one.tensor}",
            one.direction,
            f"{one.megabytes:.3f}",
            f"{one.megabytes / rates[one.direction]:.3f}" if rates.get(one.direction) else "",
        )
        for one in transfers
        if one.crosses
    )
    told = ", ".join(f"{direction} {rate:.1f} GB/s" for direction, rate in rates.items())
    note = f"At the rate of one large copy of pinned memory, measured in this run: {told}."
    return TextTable("Transfers of one inspection", ("tensor", "", "MB", "least ms"), rows, note)


def gpu_peer_table(peers: Sequence[Peer]) -> TextTable:
    """Lay out what PyTorch takes on the same GPU, with transfers and without."""
    rows = tuple(
        (
            peer.name,
            peer.part,
            peer.device,
            spread_ms(peer.seconds),
            spread_ms(peer.ours),
            "" if peer.times_faster is None else str(peer.times_faster),
            spread_ms(peer.resident),
            spread_ms(peer.ours_resident),
            "" if peer.times_faster_resident is None else str(peer.times_faster_resident),
            spread_ms(peer.events),
            _both(peer.device_memory_gb, peer.ours_device_memory_gb),
            peer.agreement if not peer.why_not else f"did not run: {peer.why_not}",
        )
        for peer in peers
    )
    heads = ("peer", "part", "on", "its ms", "ours, ms", "ours is faster x")
    return TextTable(
        "Peers on the GPU, same image, interleaved rounds",
        (*heads, "its ms, resident", "ours", "faster x", "its ms, events", "GPU GB", "agreement"),
        rows,
        "Host clock from host memory to host memory; resident: inputs lie on the GPU and outputs"
        " stay there; events: resident, by the GPU's own events. Ratios are taken inside each"
        " round: median (least-most). GPU GB: held by the process after its runs, its / ours.",
    )


def ceilings_text(ceilings: Sequence[Ceiling]) -> str:
    """Write the ceilings of a run: where they were measured, products and memory."""
    if not ceilings:
        return "are missing"
    first = ceilings[0]
    where = first.device or f"{first.threads} cores"
    rates = "; ".join(
        f"{one.precision}: {one.gflops:.0f} GFLOP/s ({_product(one)})" for one in ceilings
    )
    return f"on {where}: {rates}; memory {first.gigabytes_per_second:.1f} GB/s"


def _product(ceiling: Ceiling) -> str:
    size = "" if ceiling.size is None else f", {' x '.join(map(str, ceiling.size))}"
    return ceiling.library + size


def _whole(value: Spread | None) -> str:
    return "" if value is None else f"{value.middle:.0f} ({value.least:.0f}-{value.most:.0f})"


def _both(its: float | None, ours: float | None) -> str:
    return " / ".join("-" if value is None else f"{value:.2f}" for value in (its, ours))
