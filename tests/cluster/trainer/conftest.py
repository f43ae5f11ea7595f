from tests.controlplane.fixtures import kueue, new_queue, trainer

__all__ = ["kueue", "new_queue", "trainer"]
