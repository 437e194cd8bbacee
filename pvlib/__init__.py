"""Executable companion to PersonaVoice v10.4.8."""

__version__ = "0.1.0"
