"""Selective training inside other people's loops: one optional file for each library.

`trainer` for a stock transformers Trainer, `trl` for TRL's SFTTrainer, `scoring` for reference losses as a
dataset column. docs/integrate.md shows each in a few lines, and loops that need nothing from here.
"""
