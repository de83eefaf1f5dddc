"""Environments with articulated bodies; MuJoCo is imported only where it is used."""
