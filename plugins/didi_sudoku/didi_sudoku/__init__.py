"""Sudoku as a domain of didi_core."""

from .domain import SudokuDomain

__all__ = ["SudokuDomain"]
