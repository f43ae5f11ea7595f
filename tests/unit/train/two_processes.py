"""Two processes that form a gloo group on loopback, and run what a test gives them.

They are started once and serve all tests, for importing torch takes longer than most tests do. A test that
fails or hangs in one of them ends both, and the next test gets new ones.
"""

import contextlib
import multiprocessing
import os
import socket
import traceback

import torch
import torch.distributed as dist

from autotuner.train.processes import join

COUNT = 2
_SECONDS = 60


class TwoProcesses:
    """Runs module-level functions in two processes at once, by rank."""

    def __init__(self):
        self._members = []

    def run(self, function, *arguments):
        """Call `function(processes, *arguments)` in both; return both results, or raise what one raised."""
        if not self._members:
            self._start()
        for _, pipe in self._members:
            pipe.send((function, arguments))
        answers = [pipe.recv() if pipe.poll(_SECONDS) else (False, "no answer") for _, pipe in self._members]
        if not all(is_good for is_good, _ in answers):
            self.stop()
            raise AssertionError(
                "\n".join(f"process {rank}: {value}" for rank, (_, value) in enumerate(answers))
            )
        return [value for _, value in answers]

    def stop(self):
        """End both processes."""
        for _, pipe in self._members:
            with contextlib.suppress(OSError):
                pipe.send(None)
        for process, _ in self._members:
            process.join(1)
            process.kill()
            process.join()
        self._members = []

    def _start(self):
        # The server imports torch once, and has no threads that a fork would lose.
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload([__name__])
        with socket.create_server(("127.0.0.1", 0)) as server:
            port = server.getsockname()[1]
        for rank in range(COUNT):
            here, there = context.Pipe()
            process = context.Process(target=_serve, args=(rank, port, there), daemon=True)
            process.start()
            there.close()
            self._members.append((process, here))


def _serve(rank, port, pipe):
    os.environ.update(
        RANK=str(rank), WORLD_SIZE=str(COUNT), MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), LOCAL_RANK="0"
    )
    torch.set_num_threads(1)
    processes = join()
    with contextlib.suppress(EOFError, KeyboardInterrupt):
        while (work := pipe.recv()) is not None:
            function, arguments = work
            try:
                pipe.send((True, function(processes, *arguments)))
            except Exception:  # noqa: BLE001 (every error is reported to the test)
                pipe.send((False, traceback.format_exc()))
    dist.destroy_process_group()
