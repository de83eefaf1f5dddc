"""Flax Linen modules. They hold parameters and shapes; losses and schedules live elsewhere."""
