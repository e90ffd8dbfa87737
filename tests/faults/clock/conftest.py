from tests.worker.conftest import Stage, stage

__all__ = ["Stage", "stage"]
