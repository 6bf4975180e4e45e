"""What the CPU's allocator hands out while some work is done."""

from collections.abc import Callable

from torch.profiler import ProfilerActivity, profile


def allocated(work: Callable[[], object]) -> int:
    """The most bytes that the CPU's allocator holds beyond what it held before."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as recorded:
        work()
    found = recorded.profiler
    assert found is not None
    events = [event for event in found.kineto_results.events() if event.name() == "[memory]"]
    live = most = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        live += event.nbytes()
        most = max(most, live)
    return most
