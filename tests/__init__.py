"""Tests of knowgen."""
