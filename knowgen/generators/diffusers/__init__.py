"""Pipelines of the diffusers library on local devices."""
