"""Front ends: from a waveform to the log-mel features a network reads, and back to seconds and Hz."""

from models.frontends.base import FrontEnd, FrontEndConfig, build_frontend, frontend_kinds, register_frontend

__all__ = ["FrontEnd", "FrontEndConfig", "build_frontend", "frontend_kinds", "register_frontend"]
