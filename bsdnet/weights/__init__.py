"""Weights that ship with bsdnet; MODEL_CARD.md beside them says what they are."""
