"""Where analyses run: a small pool of workers beside the pages."""

from workbench.engine.pool import Engine, Job, engine

__all__ = ["Engine", "Job", "engine"]
